"""Tasks about lists, tables and matrices that are not put together from parts."""

from phi1_jax.grammar.special import Special as S

TABLE = (
  S(
    "lists",
    "rotate",
    "numbers",
    "list[int]",
    "a list of the items of {a}, with the first {k} moved to the end (an empty list "
    "stays empty)|{a} rotated to the left by {k} places, as a new list (empty if {a} "
    "is empty)",
    "rotate_{a}_by_{k}|[move/shift]_first_{k}_to_end|turn_left_{k}",
    (
      "if not {a}:\n    return []\nplace = {k} % len({a})\n"
      "return {a}[place:] + {a}[:place]",
    ),
    "k:1..4",
  ),
  S(
    "lists",
    "chunks",
    "numbers",
    "list[list[int]]",
    "{a} cut into lists of {k} items; the last one may be shorter|a list of "
    "consecutive pieces of {a}, each {k} long except perhaps the last",
    "[cut/split]_into_{k}|chunks_of_{k}|[groups/pieces]_of_length_{k}",
    (
      "return [{a}[i:i + {k}] for i in range(0, len({a}), {k})]",
      "result = []\nfor i in range(0, len({a}), {k}):\n    result.append({a}[i:i + "
      "{k}])\nreturn result",
    ),
    "k:2..4",
  ),
  S(
    "lists",
    "pair_sum",
    "numbers",
    "bool",
    "two items at different positions of {a} add up to {k}|{a} holds two numbers, at "
    "different indices, whose sum is {k}",
    "has_pair_with_sum_{k}|[any/some]_two_add_up_to_{k}|[two/pair]_giving_{k}",
    (
      "for i in range(len({a})):\n    for j in range(i + 1, len({a})):\n"
      "        if {a}[i] + {a}[j] == {k}:\n            return True\nreturn False",
      "seen = set()\nfor value in {a}:\n    if {k} - value in seen:\n"
      "        return True\n    seen.add(value)\nreturn False",
    ),
    "k:10..40",
  ),
  S(
    "lists",
    "second_largest",
    "numbers",
    "int | None",
    "the second largest of the distinct values in {a}, or None if there are fewer "
    "than two|the largest value of {a} that is less than its maximum (None if there "
    "is none)",
    "second_[largest/biggest/highest]|runner_up_of_{a}|[next/one]_below_maximum",
    (
      "distinct = sorted(set({a}))\nreturn distinct[-2] if len(distinct) > 1 else None",
    ),
  ),
  S(
    "lists",
    "ascending",
    "numbers",
    "bool",
    "every item of {a} after the first is greater than the one before it|the items of "
    "{a} grow strictly from each one to the next (which holds for fewer than two)",
    "is_strictly_[growing/rising]|[always/only]_rising|grows_all_along",
    (
      "return all(x < y for x, y in zip({a}, {a}[1:]))",
      "for i in range(1, len({a})):\n    if {a}[i] <= {a}[i - 1]:\n        return "
      "False\nreturn True",
    ),
  ),
  S(
    "lists",
    "peaks",
    "numbers",
    "list[int]",
    "a list of those items of {a} that are greater than both of their neighbours (the "
    "first and the last item have only one and do not count)",
    "[find/list]_peaks|local_[maxima/peaks]_of_{a}|[higher/larger]_than_neighbours",
    (
      "return [\n    {a}[i]\n    for i in range(1, len({a}) - 1)\n"
      "    if {a}[i - 1] < {a}[i] > {a}[i + 1]\n]",
      "result = []\nfor i in range(1, len({a}) - 1):\n    if {a}[i] > {a}[i - 1] and "
      "{a}[i] > {a}[i + 1]:\n        result.append({a}[i])\nreturn result",
    ),
  ),
  S(
    "lists",
    "running_maximum",
    "numbers",
    "list[int]",
    "a list that holds, for each position of {a}, the largest item up to there|the "
    "running maxima of {a}: for each item the greatest of it and all before",
    "running_[largest/highest]|[record/best]_so_far|highest_up_to_each",
    (
      "result = []\nfor value in {a}:\n    best = max(result[-1], value) if result "
      "else value\n    result.append(best)\nreturn result",
    ),
  ),
  S(
    "lists",
    "insert_between",
    "numbers",
    "list[int]",
    "{a} with {k} inserted between all neighbouring items|a new list with the items of "
    "{a} and the number {k} between every two of them",
    "[put/insert]_{k}_between|separate_{a}_by_{k}|[spaced/divided]_with_{k}",
    (
      "result = []\nfor value in {a}:\n    if result:\n        result.append({k})\n"
      "    result.append(value)\nreturn result",
    ),
    "k:0..9",
  ),
  S(
    "lists",
    "swap_ends",
    "some_numbers",
    "list[int]",
    "a copy of {a} in which the first and the last item have changed places|{a} as a "
    "new list, with its first and last item swapped",
    "swap_[ends/outer_items]|exchange_first_and_last|[ends/borders]_swapped",
    (
      "result = list({a})\nresult[0], result[-1] = result[-1], result[0]\nreturn "
      "result",
    ),
  ),
  S(
    "lists",
    "partition",
    "numbers",
    "tuple[list[int], list[int]]",
    "a pair of lists: the items of {a} that are less than {k}, and the other items, "
    "both in their order",
    "split_{a}_at_{k}|[part/divide]_below_and_above_{k}|two_lists_by_{k}",
    (
      "low = [v for v in {a} if v < {k}]\nhigh = [v for v in {a} if v >= {k}]\n"
      "return low, high",
      "low, high = [], []\nfor value in {a}:\n    if value < {k}:\n"
      "        low.append(value)\n    else:\n        high.append(value)\n"
      "return low, high",
    ),
    "k:3..25",
  ),
  S(
    "lists",
    "most_frequent",
    "words",
    "str | None",
    "the string that occurs most often in {a}, the one that appears first in case of a "
    "tie, or None if {a} is empty",
    "most_[frequent/common]_[word/string]|[mode/favourite]_of_{a}|top_[word/string]",
    (
      "best = None\nfor word in {a}:\n    if best is None or {a}.count(word) > "
      "{a}.count(best):\n        best = word\nreturn best",
    ),
  ),
  S(
    "dict",
    "invert",
    "table",
    "dict[int, list[str]]",
    "a dictionary from each value of {a} to the list of the keys that have it, in the "
    "order of {a}",
    "invert_{a}|[keys/names]_by_value|[swap/turn]_keys_and_values",
    (
      "result = {{}}\nfor key, value in {a}.items():\n"
      "    result.setdefault(value, []).append(key)\nreturn result",
      "result = {{}}\nfor key, value in {a}.items():\n    if value not in result:\n"
      "        result[value] = []\n    result[value].append(key)\nreturn result",
    ),
  ),
  S(
    "dict",
    "best_key",
    "table",
    "str | None",
    "the key of {a} with the largest value (the first one, if several have it), or "
    "None if {a} is empty|which key of {a} has the greatest value; None for an empty "
    "dictionary, and the first one in case of a tie",
    "key_[with/of]_[largest/greatest]_value|[winner/leader]_of_{a}|best_[key/entry]",
    (
      "best = None\nfor key, value in {a}.items():\n"
      "    if best is None or value > {a}[best]:\n        best = key\nreturn best",
      "return max({a}, key=lambda key: {a}[key], default=None)",
    ),
  ),
  S(
    "dict",
    "raise_all",
    "table",
    "dict[str, int]",
    "a new dictionary with the keys of {a}, in which every value is {k} larger than "
    "in {a}",
    "[raise/lift]_all_[values/entries]_by_{k}|add_{k}_to_each_value|{a}_plus_{k}",
    (
      "return {{key: value + {k} for key, value in {a}.items()}}",
      "result = {{}}\nfor key, value in {a}.items():\n    result[key] = value + {k}\n"
      "return result",
    ),
    "k:2..25",
  ),
  S(
    "dict",
    "sorted_keys",
    "table",
    "list[str]",
    "a list of the keys of {a}, ordered by their values from low to high (keys with "
    "equal values keep their order)",
    "keys_by_[value/amount]|[order/sort]_keys_of_{a}|keys_from_[low/least]_to_[high/most]",
    ("return sorted({a}, key=lambda key: {a}[key])", "return sorted({a}, key={a}.get)"),
  ),
  S(
    "matrix",
    "transpose",
    "rectangle",
    "list[list[int]]",
    "the transpose of {a}: its rows become columns|a list of the columns of {a}, each "
    "as a list",
    "[turn/change]_rows_into_columns|columns_of_{a}|[flip/swap]_rows_and_columns",
    (
      "return [list(column) for column in zip(*{a})]",
      "return [[row[i] for row in {a}] for i in range(len({a}[0]))]",
    ),
  ),
  S(
    "matrix",
    "diagonal",
    "square",
    "int",
    "the sum of the numbers on the main diagonal of {a}, from top left to bottom right",
    "[main/first]_diagonal_sum|[add/sum]_diagonal_of_{a}|trace_of_{a}",
    (
      "return sum({a}[i][i] for i in range(len({a})))",
      "total = 0\nfor i in range(len({a})):\n    total += {a}[i][i]\nreturn total",
    ),
  ),
  S(
    "matrix",
    "column",
    "rectangle",
    "list[int]",
    "a list of the last number of each row of {a}|the last column of {a} as a list",
    "last_column_of_{a}|[end/tail]_of_each_row|[final/last]_in_rows",
    (
      "return [row[-1] for row in {a}]",
      "result = []\nfor row in {a}:\n    result.append(row[-1])\nreturn result",
    ),
  ),
  S(
    "matrix",
    "scale",
    "rectangle",
    "list[list[int]]",
    "a new matrix in which every number of {a} is multiplied by {k}|{a} with each of "
    "its numbers {k} times as large, as a new list of lists",
    "[scale/multiply]_{a}_by_{k}|{a}_times_{k}|[each/all]_cells_times_{k}",
    (
      "return [[value * {k} for value in row] for row in {a}]",
      "result = []\nfor row in {a}:\n    result.append([value * {k} for value in "
      "row])\nreturn result",
    ),
    "k:2..12",
  ),
  S(
    "matrix",
    "row_maxima",
    "rectangle",
    "list[int]",
    "a list of the largest number of each row of {a}|for each row of {a} its greatest "
    "number, as a list",
    "[row/line]_maxima|[largest/highest]_in_each_row|best_of_rows_in_{a}",
    (
      "return [max(row) for row in {a}]",
      "result = []\nfor row in {a}:\n    best = row[0]\n    for value in row:\n"
      "        if value > best:\n            best = value\n    result.append(best)\n"
      "return result",
    ),
  ),
  S(
    "matrix",
    "column_sums",
    "rectangle",
    "list[int]",
    "a list of the sums of the columns of {a}|a list with the total of each column of "
    "{a}",
    "[column/vertical]_[sums/totals]|[add/sum]_columns_of_{a}|totals_by_column",
    (
      "return [sum(column) for column in zip(*{a})]",
      "totals = [0] * len({a}[0])\nfor row in {a}:\n    for i, value in "
      "enumerate(row):\n        totals[i] += value\nreturn totals",
    ),
  ),
  S(
    "matrix",
    "mirror",
    "rectangle",
    "list[list[int]]",
    "{a} with each row reversed, as a new list of lists|the mirror image of {a}, left "
    "and right exchanged in every row",
    "mirror_{a}|[flip/reverse]_each_row|left_right_[flip/mirror]",
    (
      "return [row[::-1] for row in {a}]",
      "result = []\nfor row in {a}:\n    result.append(list(reversed(row)))\n"
      "return result",
    ),
  ),
)
