"""Tasks about texts that are not put together from parts."""

from phi1_jax.grammar.special import Special as S

TABLE = (
  S(
    "strings",
    "caesar",
    "text",
    "str",
    "{a} with every lower-case letter replaced by the one {k} places further in the "
    "alphabet, going on at 'a' after 'z'|the text {a} in which each lower-case letter "
    "is shifted {k} places forward (from 'z' on to 'a') and all else is unchanged",
    "shift_[letters/text/message]_by_{k}|[rotate/move]_letters_{k}_[places/steps]|"
    "caesar_[shift/text]_{k}|[secret/coded]_{a}_{k}",
    (
      'result = ""\nfor char in {a}:\n    if "a" <= char <= "z":\n'
      '        place = (ord(char) - ord("a") + {k}) % 26\n'
      '        char = chr(ord("a") + place)\n    result += char\nreturn result',
      'letters = "abcdefghijklmnopqrstuvwxyz"\nshifted = letters[{k}:] + '
      "letters[:{k}]\nreturn {a}.translate(str.maketrans(letters, shifted))",
    ),
    "k:1..12",
  ),
  S(
    "strings",
    "initials",
    "plain",
    "str",
    "the first letters of the words of {a}, in upper case and joined to one string|an "
    "abbreviation of {a} made of the upper-case first letter of each word",
    "[make/build/get]_[acronym/initials]|[acronym/initials]_of_{a}|abbreviate_{a}",
    (
      'return "".join(word[0].upper() for word in {a}.split())',
      'result = ""\nfor word in {a}.split():\n    result += word[0].upper()\n'
      "return result",
    ),
  ),
  S(
    "strings",
    "word_order",
    "plain",
    "str",
    "the words of {a} in reverse order, separated by single spaces|{a} with its words "
    "from the last to the first",
    "reverse_word_order|[flip/turn]_words_of_{a}|[last/final]_word_first",
    (
      'return " ".join({a}.split()[::-1])',
      'words = {a}.split()\nwords.reverse()\nreturn " ".join(words)',
    ),
  ),
  S(
    "strings",
    "each_word_reversed",
    "plain",
    "str",
    "{a} with each word reversed, but the words in their order|the words of {a}, each "
    "spelled backwards, joined by spaces in the same order",
    "[reverse/mirror]_each_word|words_backwards_in_{a}|[flip/turn]_every_word",
    (
      'return " ".join(word[::-1] for word in {a}.split())',
      "result = []\nfor word in {a}.split():\n    result.append(word[::-1])\n"
      'return " ".join(result)',
    ),
  ),
  S(
    "strings",
    "alternate_case",
    "text",
    "str",
    "{a} with the characters at even indices in upper case and the others in lower "
    "case|the string {a}, alternately in upper and lower case, beginning with upper "
    "case",
    "alternate_case|[zigzag/alternating]_case_of_{a}|[make/write]_alternating",
    (
      'return "".join(\n    c.upper() if i % 2 == 0 else c.lower() for i, c in '
      "enumerate({a})\n)",
      'result = ""\nfor i, char in enumerate({a}):\n    if i % 2 == 0:\n'
      "        result += char.upper()\n    else:\n        result += char.lower()\n"
      "return result",
    ),
  ),
  S(
    "strings",
    "squeeze",
    "text",
    "str",
    "{a} with every run of equal characters shortened to one of them|the string {a} "
    "without characters that equal the one before",
    "squeeze_[text/string/runs]|[drop/remove]_adjacent_repeats|collapse_runs_in_{a}",
    (
      'result = ""\nfor char in {a}:\n    if not result or result[-1] != char:\n'
      "        result += char\nreturn result",
    ),
  ),
  S(
    "strings",
    "longest_run",
    "text",
    "int",
    "the length of the longest run of equal characters in {a} (0 if it is empty)|how "
    "many times in a row a character occurs in {a} at most (0 for an empty string)",
    "longest_run_[in/of]_{a}|[max/greatest]_repeat_length|longest_[same/equal]_stretch",
    (
      "longest = 0\nrun = 0\nprevious = None\nfor char in {a}:\n"
      "    run = run + 1 if char == previous else 1\n    longest = max(longest, run)\n"
      "    previous = char\nreturn longest",
    ),
  ),
  S(
    "strings",
    "mask",
    "word",
    "str",
    "{a} with all but its last {k} characters replaced by {m} (unchanged if it is no "
    "longer than that)|the string {a}, in which every character except the last {k} is "
    "replaced by {m}; a string of at most {k} characters stays as it is",
    "mask_{a}_except_{k}|hide_all_but_last_{k}|[show/leave]_last_{k}|"
    "[cover/mask]_[start/front]_of_{a}",
    (
      "hidden = max(len({a}) - {k}, 0)\nreturn {m} * hidden + {a}[hidden:]",
      "if len({a}) <= {k}:\n    return {a}\nreturn {m} * (len({a}) - {k}) + {a}[-{k}:]",
    ),
    "k:2..4 m:@mark",
  ),
  S(
    "strings",
    "truncate",
    "text",
    "str",
    "{a} cut to {k} characters, with {m} behind it if something was cut off|the first "
    "{k} characters of {a}, followed by {m} only if {a} is longer than that",
    "truncate_{a}_to_{k}|[cut/shorten/clip]_to_{k}_[characters/letters]|limit_{a}_to_{k}",
    (
      "if len({a}) <= {k}:\n    return {a}\nreturn {a}[:{k}] + {m}",
      "return {a} if len({a}) <= {k} else {a}[:{k}] + {m}",
    ),
    "k:3..9 m:@mark",
  ),
  S(
    "strings",
    "interleave",
    "word word",
    "str",
    "the characters of {a} and {b} taken in turn, beginning with {a}, as long as both "
    "have some left|a string that takes one character of {a} and one of {b} in turn "
    "and stops when the shorter one ends",
    "[interleave/weave/zip]_strings|[weave/braid]_two_[words/texts]|take_in_turn",
    (
      'result = ""\nfor x, y in zip({a}, {b}):\n    result += x + y\nreturn result',
      'return "".join(x + y for x, y in zip({a}, {b}))',
    ),
  ),
  S(
    "strings",
    "common_start",
    "word word",
    "str",
    "the longest string that both {a} and {b} start with|the part at the start of {a} "
    "that {b} has at its start too",
    "common_[start/beginning]|shared_[prefix/start]_of_two|[same/equal]_beginning",
    (
      'result = ""\nfor x, y in zip({a}, {b}):\n    if x != y:\n        break\n'
      "    result += x\nreturn result",
      "count = 0\nwhile count < min(len({a}), len({b})) and {a}[count] == {b}[count]:\n"
      "    count += 1\nreturn {a}[:count]",
    ),
  ),
  S(
    "strings",
    "differing",
    "word word",
    "int",
    "the number of positions at which {a} and {b} have different characters, counting "
    "only positions that both have|how many characters of {a} differ from the "
    "character of {b} at the same index, up to the end of the shorter string",
    "count_[differences/mismatches]|[number/count]_of_differing_[letters/places]|"
    "mismatch_count",
    (
      "return sum(x != y for x, y in zip({a}, {b}))",
      "count = 0\nfor x, y in zip({a}, {b}):\n    if x != y:\n        count += 1\n"
      "return count",
    ),
  ),
  S(
    "strings",
    "same_letters",
    "word word",
    "bool",
    "{a} and {b} consist of the same letters, if case is ignored, each as often|"
    "the letters of {a} can be rearranged to give {b}, ignoring case",
    "same_letters_[in/of]_both|are_[rearranged/shuffled]_letters|is_letter_shuffle",
    ("return sorted({a}.lower()) == sorted({b}.lower())",),
  ),
  S(
    "strings",
    "shared_letter",
    "word word",
    "bool",
    "{a} and {b} have at least one character in common|some character of {a} occurs in "
    "{b} too",
    "share_a_[letter/character]|have_common_[letter/character]|[any/some]_shared_letter",
    (
      "return any(c in {b} for c in {a})",
      "for c in {a}:\n    if c in {b}:\n        return True\nreturn False",
      "return bool(set({a}) & set({b}))",
    ),
  ),
  S(
    "strings",
    "runs",
    "word",
    "list[tuple[str, int]]",
    "a list of pairs of a character and the length of its run, for all runs of equal "
    "characters in {a}|the runs of equal characters in {a}, as a list of tuples "
    "(character, length)",
    "[encode/list/find]_runs|runs_of_[characters/letters]|run_lengths_of_{a}",
    (
      "result = []\nfor char in {a}:\n    if result and result[-1][0] == char:\n"
      "        result[-1] = (char, result[-1][1] + 1)\n    else:\n"
      "        result.append((char, 1))\nreturn result",
    ),
  ),
  S(
    "strings",
    "title_words",
    "plain",
    "str",
    "{a} with the first letter of each word in upper case and all other letters as "
    "they were|the words of {a}, each with an upper-case first letter and otherwise "
    "unchanged",
    "[capital/upper]_first_letters|[start/begin]_words_with_capital|head_case_of_{a}",
    (
      'return " ".join(word[0].upper() + word[1:] for word in {a}.split())',
      "result = []\nfor word in {a}.split():\n    result.append(word[0].upper() + "
      'word[1:])\nreturn " ".join(result)',
    ),
  ),
  S(
    "strings",
    "snake",
    "plain",
    "str",
    "{a} in lower case with {m} instead of each space|the lower-case words of {a}, "
    "joined by {m}",
    "[slug/key]_of_{a}|[join/link]_lower_words|[words/text]_to_[slug/key]",
    ("return {m}.join({a}.lower().split())", 'return {a}.lower().replace(" ", {m})'),
    "m:@mark",
  ),
  S(
    "strings",
    "count_piece",
    "plain",
    "int",
    "how often {p} occurs in {a}, where occurrences may overlap|the number of indices "
    "of {a} at which {p} begins",
    "count_{p}_in_{a}|occurrences_of_{p}|[how_often/times]_{p}",
    (
      "count = 0\nfor i in range(len({a})):\n    if {a}.startswith({p}, i):\n"
      "        count += 1\nreturn count",
      "return sum({a}[i:i + len({p})] == {p} for i in range(len({a})))",
    ),
    "p:@piece",
  ),
)
