"""Vocabulary: what things are called, in prose and as arguments; values to try."""

import dataclasses
import random

from phi1_jax.grammar.draws import chance, pick


def _list(text: str) -> tuple[str, ...]:
  return tuple(text.split())


# Names that solutions use for themselves: no argument and no function is called so.
LOCALS = frozenset(
  _list(
    "total count result results kept best found item value changed updated current "
    "previous left right key index char digit number word row cell low high seen step "
    "steps product longest shortest average groups counts pair first second window "
    "answer running start stop rest head tail helper func inner x y z a b c d e i j k "
    "v w n m s ch element entry letter num val pos part other mapped selected"
  )
)

# One and many of what a list of whole numbers may hold.
NUMBER_NOUNS = tuple(
  tuple(pair.split("/"))
  for pair in _list(
    "score/scores price/prices age/ages weight/weights height/heights "
    "temperature/temperatures reading/readings mark/marks grade/grades amount/amounts "
    "cost/costs distance/distances length/lengths width/widths depth/depths "
    "speed/speeds point/points level/levels delay/delays sale/sales salary/salaries "
    "balance/balances deposit/deposits payment/payments order/orders "
    "quantity/quantities rating/ratings vote/votes sample/samples "
    "measurement/measurements code/codes year/years day/days hour/hours "
    "minute/minutes page/pages ticket/tickets floor/floors offset/offsets rank/ranks "
    "bid/bids fee/fees tax/taxes profit/profits loss/losses size/sizes volume/volumes "
    "signal/signals pulse/pulses coin/coins stone/stones egg/eggs goal/goals lap/laps "
    "seat/seats shift/shifts reward/rewards penalty/penalties number/numbers "
    "integer/integers"
  )
)
GENERIC_NUMBERS = (
  ("number", "numbers"),
  ("value", "values"),
  ("integer", "integers"),
  ("element", "elements"),
  ("item", "items"),
)
NUMBER_LISTS = _list(
  "numbers nums values data integers ints arr lst array sequence seq items elements "
  "entries inputs series figures collection xs number_list given_numbers"
)
WORD_NOUNS = tuple(
  tuple(pair.split("/"))
  for pair in _list(
    "name/names city/cities country/countries fruit/fruits color/colors "
    "animal/animals label/labels tag/tags title/titles token/tokens term/terms "
    "town/towns river/rivers plant/plants tool/tools planet/planets product/products "
    "brand/brands user/users player/players student/students guest/guests file/files "
    "folder/folders command/commands keyword/keywords subject/subjects dish/dishes "
    "street/streets song/songs hobby/hobbies password/passwords nickname/nicknames "
    "author/authors month/months"
  )
)
GENERIC_WORDS = (("word", "words"), ("string", "strings"), ("word", "words"))
WORD_LISTS = _list(
  "words strings word_list texts vocabulary lines_of_words dictionary_words strs "
  "string_list lexicon given_words wordlist"
)
TEXTS = _list(
  "text sentence message phrase line string paragraph title_text note comment "
  "input_text content remark quote headline slogan caption saying speech document "
  "reply label_text source_text raw_text"
)
NUMBERS = _list(
  "number_value amount quantity points score price age level limit size target "
  "budget distance_km speed weight seconds minutes hours days year stock balance "
  "temperature integer given_number input_number num1 argument reading position_id "
  "code_number capacity height width depth load"
)
COUNTS = _list("limit upper bound maximum last_number end size_limit n_max top")
TABLES = _list(
  "table stock prices_by_item ages_by_name scores_by_player inventory ledger "
  "mapping records register catalogue points_by_team data_map lookup totals_by_day "
  "votes_by_name counts_by_word budget_by_team grades_by_student dictionary "
  "weights_by_item"
)
GRIDS = _list(
  "matrix grid rows_of_numbers board nested table_rows nested_list lists_of_numbers "
  "number_grid groups_of_numbers batches nested_numbers sheet pages_of_numbers"
)
SETS = _list(
  "unique_numbers number_set ids members distinct_values chosen allowed_values "
  "known_ids set_of_numbers codes_set"
)
TUPLES = _list(
  "triple coordinates record point_values measurements_tuple number_tuple vector "
  "dimensions throw_results settings"
)
FIRST_LISTS = _list(
  "first_list left_values list_a xs_values lengths_m quantities_sold hours_worked "
  "numbers_a first_numbers one_list top_row series_a old_values"
)
SECOND_LISTS = _list(
  "second_list right_values list_b ys_values widths_m unit_prices hourly_rates "
  "numbers_b second_numbers other_list bottom_row series_b new_values"
)
SET_PAIRS = tuple(
  tuple(pair.split("/"))
  for pair in _list(
    "left_set/right_set first_set/second_set set_a/set_b monday_ids/tuesday_ids "
    "mine/yours group_one/group_two old_ids/new_ids invited/present"
  )
)

# Who could want such a function: a holder, for stories.
HOLDERS = (
  "A shop",
  "A teacher",
  "A weather station",
  "A library",
  "A coach",
  "An archivist",
  "A gardener",
  "A bank",
  "A game",
  "A museum",
  "A farmer",
  "A baker",
  "A laboratory",
  "A sensor",
  "A club",
  "A ferry line",
  "A postal service",
  "A choir",
  "A census",
  "A workshop",
)

LOWER_WORDS = _list(
  "apple river stone cloud tree lemon paper window garden orange banana silver "
  "level radar kayak noon tiger eagle otter lion snake horse mouse cat dog bird "
  "fish ant owl bee tea milk bread rice salt sugar pepper butter honey table chair "
  "lamp door roof wall floor brick sand rock hill lake sea ocean island forest "
  "meadow path road bridge tower castle king queen prince art music drum flute "
  "piano guitar song dance paint brush color red green blue pink brown black white "
  "gray iron gold copper steel glass cotton wool silk ring coin card dice ball kite "
  "boat ship train car bus bike plane rocket moon star sun rain snow wind storm fog "
  "ice fire smoke ash dust mud clay seed root leaf bloom rose lily tulip daisy fern "
  "moss pine oak elm ivy unit echo area idea end input office uncle aunt answer "
  "engine address letter coffee rotor civic little swim run idle under over even "
  "upon into onto alpha delta sigma omega"
)


@dataclasses.dataclass(frozen=True)
class Noun:
  """What the elements are called, and the argument that holds them."""

  one: str
  many: str
  argument: str


def number_list(rng: random.Random) -> Noun:
  """A name for a list of whole numbers."""
  if chance(rng, 0.5):
    one, many = pick(rng, GENERIC_NUMBERS)
    return Noun(one, many, pick(rng, NUMBER_LISTS))
  one, many = pick(rng, NUMBER_NOUNS)
  argument = pick(
    rng, (many, many, many, f"{one}_list", f"all_{many}", f"{one}_values")
  )
  return Noun(one, many, argument)


def word_list(rng: random.Random) -> Noun:
  """A name for a list of words."""
  if chance(rng, 0.55):
    one, many = pick(rng, GENERIC_WORDS)
    return Noun(one, many, pick(rng, WORD_LISTS))
  one, many = pick(rng, WORD_NOUNS)
  return Noun(one, many, pick(rng, (many, many, f"{one}_list", f"all_{many}")))
