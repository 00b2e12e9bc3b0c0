"""Tasks about numbers that are not put together from parts."""

from phi1_jax.grammar.special import Special as S

TABLE = (
  S(
    "recursion",
    "common_divisor",
    "positive positive",
    "int",
    "the largest integer that divides both {a} and {b}|the greatest number by which "
    "{a} and {b} are both divisible",
    "[largest/biggest]_shared_divisor|common_divisor_of_two|[shared/common]_factor",
    ("if {b} == 0:\n    return {a}\nreturn {self}({b}, {a} % {b})",),
  ),
  S(
    "recursion",
    "falling_product",
    "small",
    "int",
    "the product of {a}, {a} - {k}, {a} - {k} - {k} and so on, as long as the factors "
    "are positive (1 if there are none)",
    "falling_product_by_{k}|product_down_in_steps_of_{k}|[skip/step]_product_{k}",
    (
      "if {a} <= 0:\n    return 1\nreturn {a} * {self}({a} - {k})",
      "product = 1\nwhile {a} > 0:\n    product *= {a}\n    {a} -= {k}\nreturn product",
    ),
    "k:1..4",
  ),
  S(
    "recursion",
    "sequence",
    "small",
    "int",
    "f({a}), where f(0) = {p}, f(1) = {q}, and each later value is the sum of the two "
    "before it|the value at index {a} (counted from 0) of the sequence that begins "
    "with {p} and {q} and in which each number is the sum of the two before",
    "sequence_from_{p}_and_{q}|[term/value]_of_sum_sequence_{p}_{q}|nth_from_{p}_{q}",
    (
      "if {a} == 0:\n    return {p}\nif {a} == 1:\n    return {q}\n"
      "return {self}({a} - 1) + {self}({a} - 2)",
      "current, following = {p}, {q}\nfor _ in range({a}):\n"
      "    current, following = following, current + following\nreturn current",
    ),
    "p:1..7 q:2..9",
  ),
  S(
    "recursion",
    "recurrence",
    "small",
    "int",
    "f({a}), where f(0) = {p} and f(n) = {q} * f(n - 1) + {r} for n > 0|what {p} "
    "becomes when it is multiplied by {q} and increased by {r}, {a} times in a row",
    "recurrence_{p}_{q}_{r}|[grow/step]_from_{p}_times_{q}_plus_{r}|f_{p}_{q}_{r}_at",
    (
      "if {a} == 0:\n    return {p}\nreturn {q} * {self}({a} - 1) + {r}",
      "value = {p}\nfor _ in range({a}):\n    value = {q} * value + {r}\nreturn value",
    ),
    "p:1..9 q:2..4 r:1..9",
  ),
  S(
    "while",
    "digit_root",
    "natural",
    "int",
    "what is left of {a} when its digits are added up again and again until there is "
    "only one digit|the single digit that comes out when {a} is replaced by the sum "
    "of its digits until it is less than 10",
    "[repeated/final]_digit_sum|[reduce/shrink]_to_one_digit|add_digits_until_single",
    (
      "while {a} >= 10:\n    {a} = sum(int(d) for d in str({a}))\nreturn {a}",
      "if {a} < 10:\n    return {a}\nreturn {self}(sum(int(d) for d in str({a})))",
    ),
  ),
  S(
    "while",
    "base_digits",
    "natural",
    "list[int]",
    "the digits of {a} in base {k}, from the last to the first (an empty list for 0)|a "
    "list of the base {k} digits of {a}, lowest place first; for 0 the list is empty",
    "digits_in_base_{k}|base_{k}_[digits/places]|[split/convert]_to_base_{k}",
    (
      "digits = []\nwhile {a} > 0:\n    digits.append({a} % {k})\n    {a} //= {k}\n"
      "return digits",
    ),
    "k:2..9",
  ),
  S(
    "while",
    "factor_count",
    "positive",
    "int",
    "how many times {a} can be divided by {k} without a remainder|the largest number "
    "of times that {k} divides {a} evenly, one division after the other",
    "times_divisible_by_{k}|[count/number]_of_factors_{k}|how_often_{k}_divides",
    (
      "count = 0\nwhile {a} % {k} == 0:\n    {a} //= {k}\n    count += 1\nreturn count",
    ),
    "k:2..3",
  ),
  S(
    "while",
    "next_multiple",
    "natural",
    "int",
    "the smallest multiple of {k} that is not less than {a}|{a} rounded up to a "
    "multiple of {k}",
    "round_up_to_{k}|next_multiple_of_{k}|[fill/raise]_to_multiple_of_{k}",
    (
      "while {a} % {k} != 0:\n    {a} += 1\nreturn {a}",
      "return ({a} + {k} - 1) // {k} * {k}",
    ),
    "k:3..25",
  ),
  S(
    "arithmetic",
    "clock",
    "natural",
    "str",
    "{a} minutes as hours and minutes, in the form 'H:MM'|the duration of {a} minutes, "
    "written as hours, a colon and minutes with two digits",
    "[format/write]_[minutes/duration]|minutes_to_clock|hours_and_minutes_of_{a}",
    (
      'return f"{{{a} // 60}}:{{{a} % 60:02d}}"',
      'hours, minutes = divmod({a}, 60)\nreturn f"{{hours}}:{{minutes:02d}}"',
    ),
  ),
  S(
    "arithmetic",
    "fare",
    "natural",
    "int",
    "the price for {a} units, if each of the first {k} costs {p} and each further one "
    "{q}|what {a} pieces cost: {p} each for the first {k}, and {q} each for the rest",
    "[total/full]_price_[over/above]_{k}|cost_with_discount_after_{k}|price_{p}_then_{q}",
    (
      "if {a} <= {k}:\n    return {a} * {p}\nreturn {k} * {p} + ({a} - {k}) * {q}",
      "first = min({a}, {k})\nreturn first * {p} + ({a} - first) * {q}",
    ),
    "k:5..40 q:1..5 p:q+1..6",
  ),
  S(
    "arithmetic",
    "sum_to",
    "small",
    "int",
    "the sum of i ** {k} over all integers i from 1 to {a}|1 to the power of {k}, "
    "plus 2 to the power of {k}, and so on up to {a} to the power of {k} (0 for {a} = "
    "0)",
    "sum_of_powers_{k}|power_sum_{k}_up_to|add_powers_of_exponent_{k}",
    (
      "return sum(i ** {k} for i in range(1, {a} + 1))",
      "total = 0\nfor i in range(1, {a} + 1):\n    total += i ** {k}\nreturn total",
    ),
    "k:2..5",
  ),
  S(
    "arithmetic",
    "fizz",
    "small",
    "list[str]",
    "a list of the numbers from 1 to {a} as strings, with {s} instead of each "
    "multiple of {k}",
    "count_with_{k}_replaced|[numbers/list]_with_word_for_{k}|say_numbers_except_{k}",
    (
      "return [{s} if i % {k} == 0 else str(i) for i in range(1, {a} + 1)]",
      "result = []\nfor i in range(1, {a} + 1):\n    if i % {k} == 0:\n"
      "        result.append({s})\n    else:\n        result.append(str(i))\n"
      "return result",
    ),
    "k:2..5 s:@call",
  ),
  S(
    "arithmetic",
    "between_squares",
    "natural",
    "int",
    "the largest integer whose square is at most {a}|how many positive integers have a "
    "square that does not exceed {a}",
    "[whole/integer]_root_of_{a}|squares_up_to_{a}|floor_of_root",
    ("root = 0\nwhile (root + 1) ** 2 <= {a}:\n    root += 1\nreturn root",),
  ),
)
