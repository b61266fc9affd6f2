"""The words that phrases are made of, in four classes.

One or two syllables each, spelt regularly where English gives the choice. Verbs are in the past tense, so that a
subject of either number agrees. The order matters: a vocabulary of n words is the first n of :func:`word_list`, and the
first 40 hold every phoneme of American English.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MODIFIERS = _words(
    """
    young light this good thin small each sharp brown huge
    red blue green old new big fast cold warm bright dark deep wide flat soft hard loud quick slow clean fresh
    strong weak dry wet short long high low round square smooth rough sweet sour rich poor brave shy proud calm
    pink black white grey gold silver wooden plastic purple yellow silent happy lucky hungry thirsty sleepy dusty muddy
    rusty windy sunny rainy foggy snowy frosty stormy noisy tiny single double simple gentle humble noble able eager
    clever bitter tender proper careful helpful useful thankful hopeful joyful cheerful playful painful open broken
    frozen sudden hidden rotten stolen woven modern northern southern eastern western distant pleasant constant instant
    patient ancient urgent absent rapid solid stupid vivid timid humid splendid comic magic tragic public basic perfect
    exact correct complete extreme secret lazy crazy busy easy pretty funny sad mad glad grim slim trim plain vain main
    fair bare rare pale safe brief neat cheap steep keen lean mean clear sheer blunt crisp damp faint firm fond full
    limp lush mild moist numb odd pure shrill sleek snug stale stern stiff stout strange strict
    swift tame tart tense true vague vast wild wise
    """
)
NOUNS = _words(
    """
    dog boy bird house voice judge fish goat cup bath chair king van zebra treasure
    ship cat mouse wheel lake yard ring cake tree moon star sun cloud rain snow wind fire stone sand hill road bridge
    train bus car truck boat plane bike cart horse cow pig sheep hen duck goose frog snake bear wolf fox deer
    rabbit tiger monkey camel lion eagle spider lobster hammer ladder window garden kitchen market pocket basket blanket
    carpet jacket ticket rocket bucket button cotton kitten chicken dragon wagon lemon melon carrot parrot robot pilot
    doctor teacher farmer baker driver painter singer dancer hunter sailor tailor actor writer reader runner winner
    father mother brother sister uncle cousin baby lady queen prince friend neighbour student captain soldier
    apple bread butter cheese milk soup rice corn bean pea plum peach pear grape nut salt pepper sugar honey coffee
    hand foot arm leg head neck chest nose mouth chin cheek tooth tongue thumb knee toe skin bone
    hat coat shirt shoe boot belt sock glove scarf dress skirt ribbon collar sleeve
    table desk lamp clock shelf door floor roof wall gate fence barn shed tower castle palace temple
    pen book page paper letter pencil picture story poem song drum flute horn bell violin
    ball bat net kite doll game card puzzle prize medal
    river ocean island valley forest desert mountain meadow jungle cave cliff beach harbour field path street
    morning evening summer winter spring autumn sunset thunder storm shadow
    plate bowl spoon fork knife pot pan jug glass bottle kettle oven
    rope chain nail hook wire pipe pump axe spade
    gift coin purse bag box tin can jar
    crown sword shield flag tent camp
    leaf branch root seed flower rose lily daisy tulip grass weed moss
    bee ant moth wasp bug crab shrimp whale shark seal
    """
)
VERBS = _words(
    """
    found took made joined pushed watched saved used chose heard
    ran sang met held gave sold moved kept left lost built bought brought caught taught felt dealt slept swept wept
    began drank sank rang swam spun won stuck struck swung hung dug clung wrote rode drove broke spoke woke stole
    saw drew flew grew knew threw blew told rolled pulled filled called failed sailed mailed cooled peeled healed
    liked baked looked cooked picked kicked locked packed talked walked worked asked marked parked
    jumped helped stopped dropped shopped clapped tapped wrapped hopped skipped
    missed passed kissed crossed guessed pressed dressed chased placed raced faced danced bounced
    washed brushed wished rushed crushed fished finished
    reached touched pitched matched scratched patched stretched
    turned burned learned earned opened cleaned planned rained gained trained
    hummed aimed named dreamed seemed farmed formed
    played stayed obeyed sprayed cried tried fried dried tied
    loved lived waved carved served solved shaved
    closed raised pleased praised
    grabbed rubbed hugged dragged
    wanted painted counted planted shouted waited visited started hunted melted tasted tested trusted invited
    needed landed handed ended sounded folded loaded mended traded
    borrowed followed swallowed showed
    carried married hurried worried buried copied studied
    answered entered offered ordered covered gathered
    """
)
ADVERBS = _words(
    """
    now there soon away first
    here well then again down up out back home today early later always often never ever twice once
    slowly quickly softly loudly gladly badly sadly madly boldly coldly kindly calmly firmly warmly clearly nearly
    really fairly bravely safely nicely wisely rudely closely finely lately strangely
    gently simply humbly nobly barely rarely
    smoothly roughly sweetly sharply deeply neatly cheaply briefly keenly
    tonight inside outside upstairs downstairs indoors outdoors upward downward forward backward homeward
    somewhere nowhere elsewhere abroad ahead aside apart alone
    almost maybe perhaps instead indeed
    daily weekly yearly mostly partly freshly newly brightly tightly lightly
    """
)

# Of eight words in a row, two modify, three name, two tell what was done and one tells how, where or when.
CYCLE = _words("noun modifier verb noun modifier noun verb adverb")


def word_list() -> list[tuple[str, str]]:
    """All (word, class) in vocabulary order: the classes in turn, so that every prefix can make phrases."""
    queues = {
        "modifier": iter(MODIFIERS),
        "noun": iter(NOUNS),
        "verb": iter(VERBS),
        "adverb": iter(ADVERBS),
    }
    ordered: list[tuple[str, str]] = []
    while True:
        for kind in CYCLE:
            word = next(queues[kind], None)
            if word is None:
                return ordered
            ordered.append((word, kind))
