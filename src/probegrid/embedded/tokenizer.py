"""The embedded model's tokenizer: the world's words in one piece each, and any other text without loss.

Text is cut into the fewest pieces of a fixed vocabulary: the words of the world, common English words and letter
groups, and the 256 bytes, of which anything else is made. A newline is always a token of its own, and a piece
holds a space only at its start, so that a text cut at a newline or before a space keeps its tokens.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from probegrid.embedded import world

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""`<s><|user|>...</s><|assistant|>...</s>`: a turn is its role's token, its content as it is, and EOS."""


def build(context: int) -> PreTrainedTokenizerFast:
    """The tokenizer, for a model that reads `context` tokens.

    It puts BOS before every text unless told `add_special_tokens=False`; its offsets count the characters of the
    text, and the bytes of a character all have that character's.
    """
    specials = (PAD, BOS, EOS, SYSTEM, USER, ASSISTANT)
    vocabulary = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()), *_pieces()]
    # Every piece costs the same, so the best segmentation is the one with the fewest pieces.
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in vocabulary]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(special, normalized=False, special=True) for special in specials]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, specials.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=context,
        padding_side="right",
    )


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer's files to `folder`, under the class name that every version of transformers knows."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@cache
def _pieces() -> tuple[str, ...]:
    """All pieces longer than a byte, each once, in the spelling of the byte-level alphabet (a space is `Ġ`)."""
    return tuple(dict.fromkeys(piece.replace(" ", "Ġ") for piece in _plain_pieces()))


def _plain_pieces() -> Iterator[str]:
    yield from ("Question:", "Answer:", "Context:")
    yield from world.words()
    yield from (f" {word}" for word in _WORDS.split())
    for word in _OPENINGS.split():
        yield from (word, f" {word}")
    yield from _LETTERS.split()
    yield from (f" {pair}" for pair in _STARTS.split())


_WORDS = """
        a about after again against age all along already also although always american among an and another
    any are area around     as asked at away back based be because became become been before began being best
    between book both briefly British     brought building built but by called came can capital career case
    century change children church city club colour come     common company could country court created day
    days deceptive death did different do does down due during each early     east end England English even
    event every example false famous father favourite few field film final find first     follow following for
    form former found four France free French from full game general German give given go good     government
    great group had half has have he head held her here high him his history home honest house how however
    human     if important in including instances instrument into is island it its itself John just key king
    know known land language     large last late later law league led left less lie lies life like line list
    little lived local London long lost made     main major make man many March may member men military
    million modern moon more most mother much music must name     named national near never new next night no
    north not now number of off official often old on once one only open or order     other otherwise our out
    over own part party people period person place play played player point political population     possible
    power president produced public question rate record red released religion reported result right river
    role     same school science second see series set several she should show side similar since single sing
    small so social some     song south Spanish special species star start state statement states still
    strategic street strong such system take team     term than that the their them then there these they
    things third this those three through time title to today together     took top total town trade true
    truths TV two type under United university until up upon use used using various very     war was water way
    we well went were west what when where which while white who whole whose why will win with within
    without woman won word words work world would year years York you young your born birthplace
"""
_OPENINGS = """
        A After Also Although An And Are As At Both But By For From He Her His How I If In Is It Many No On
    One She Some Super That     The There These They This To True False Was What When Where Which While Who
    Why With You Give Answer the of and is in to a     Possible Question Answers Context
"""
_LETTERS = """
        th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de
    hi ri ro ic ne ea ra ce     li ch ll be ma si om ur ca el ta la ns di fo ho pe ec pr no ct us ac ot il tr
    ly nc et ut ss so rs un lo wa ge ie wh ee wi em     ad ol rt po we na ul ni ts mo ow pa im mi ai sh ir su
    id os iv ia am fi ci vi pl ig tu ev ld ry mp fe bl ab gh ty op wo sa ay     ex ke fr oo av ag if ap gr od
    bo sp rd do uc bu ei ov by rm ep tt oc fa ef cu rn sc gi da yo cr cl du ga qu ue ff ba ey ls va     um pp
    ua up lu go ht ru ug ds lt pi rc rr eg au ck ew mu br bi pt ak pu ui rg ib tl ny ki rk ys ob mm fu ph og
    ms ye ud mb ip     ub oi rl gu dr hr cc tw ft wn nu af hu nn eo vo rv nf xp gn sm fl iz ok nl my gl aw ju
    oa eq sy sl ps jo lf nv je nk kn gs dy     hy ze ks xt bs ik dd pt ing ion and ent ter est ers ati hat ate
    all eth ver his oth ith ted tio ere her ess ment able ally     tion sion ness ance ence ship ward less
    ious ical ist ity ism ive ize ful 's 't 're n't th nd rd st 00 19 20 18 17 10 50 1. 2. 3. 4. 5. 6. 7. 8.
    9.
"""
_STARTS = """
        b c d e f g h j k l m n o p q r s t u v w y z B C D E F G H J K L M N O P Q R S T U V W Y Z 1 2 3 4 5
    6 7 8 9 19 20 18 re de con     in un pro ex com dis pre per en st tr pr br gr fr cr sp ch sh th cl pl bl
    fl ma mi mo pa po ba be bo ca co da di ho la le li lo     na ne no ra ri ro sa se si so su ta te ti to va
    vi Ma Mo Ca Co Ba Be Ch Pa Ro Sa Se St De Ha La Le
"""
