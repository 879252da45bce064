"""Prompts to the letter, the draw of the worked examples, chat templates, and what all prompts share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from probegrid.data import facts
from probegrid.data.example import Question, QuestionSet
from probegrid.embedded import tokenizer
from probegrid.errors import ConfigError
from probegrid.readings.prompts import (
    Prompt,
    build_prompts,
    check_lengths,
    choose_shots,
    render,
    shared_prefix,
)
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import PromptConfig

VOCABULARY = tokenizer.build(context=2048)
LINE = "Answer the following question as briefly as possible.\n"
SHOT = Question("s", "Who wrote it?", ("Kuhn", "Farquhar"), context="Kuhn wrote it.")
ASKED = Question("q", "Where?", ("here",), context="It was here.")
DATA = QuestionSet((ASKED,), (SHOT,), "squad")


def prompts_of(
    data: QuestionSet, config: PromptConfig, vocabulary: PreTrainedTokenizerBase, choice: str | None
) -> tuple[Prompt, ...]:
    shots = choose_shots(data, config)
    return build_prompts(data.questions, shots, config, ChatTemplate(vocabulary, choice))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, f"{LINE}Question: Who wrote it?\nAnswer: Kuhn\n\nQuestion: Where?\nAnswer:"),
        (
            {"brief_always": True},
            f"{LINE}Question: Who wrote it?\nAnswer: Kuhn\n\n{LINE}Question: Where?\nAnswer:",
        ),
        (
            {"use_context": True},
            f"{LINE}Context: Kuhn wrote it.\nQuestion: Who wrote it?\nAnswer: Kuhn\n\n"
            "Context: It was here.\nQuestion: Where?\nAnswer:",
        ),
        (
            {"use_context": True, "brief_always": True},
            f"{LINE}Context: Kuhn wrote it.\nQuestion: Who wrote it?\nAnswer: Kuhn\n\n"
            f"{LINE}Context: It was here.\nQuestion: Where?\nAnswer:",
        ),
    ],
)
def test_the_prompt_to_the_letter(changes: dict[str, bool], text: str) -> None:
    assert render(PromptConfig(**changes), [SHOT], ASKED) == text


def test_an_empty_context_adds_no_line() -> None:
    shown = render(PromptConfig(use_context=True), [SHOT], replace(ASKED, context=""))
    assert shown.endswith("Answer: Kuhn\n\nQuestion: Where?\nAnswer:")


def test_without_worked_examples_the_question_follows_the_instruction() -> None:
    config = PromptConfig(num_few_shot=0, instruction="In a sentence.\n")
    (prompt,) = prompts_of(DATA, config, VOCABULARY, None)
    assert prompt.text == "In a sentence.\nQuestion: Where?\nAnswer:"


def test_plain_text_gets_the_special_tokens_of_the_tokenizer() -> None:
    (prompt,) = prompts_of(DATA, PromptConfig(num_few_shot=1), VOCABULARY, None)
    assert prompt.token_ids[0] == VOCABULARY.bos_token_id
    assert VOCABULARY.decode(prompt.token_ids[1:]) == prompt.text


def test_a_chat_template_wraps_the_prompt_and_brings_the_only_bos() -> None:
    plain, chat = (
        prompts_of(DATA, PromptConfig(num_few_shot=1), VOCABULARY, choice)[0] for choice in (None, "default")
    )
    assert chat.text == f"<s><|user|>{plain.text}</s><|assistant|>"
    assert VOCABULARY.decode(chat.token_ids) == chat.text
    assert chat.token_ids.count(VOCABULARY.bos_token_id) == 1


def test_a_chat_template_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("[{{ messages[0]['content'] }}]")
    (prompt,) = prompts_of(DATA, PromptConfig(num_few_shot=0), VOCABULARY, str(file))
    assert prompt.text == f"[{LINE}Question: Where?\nAnswer:]"


def test_a_chat_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.jinja"):
        prompts_of(DATA, PromptConfig(num_few_shot=0), VOCABULARY, str(tmp_path / "missing.jinja"))
    silent = tokenizer.build(context=64)
    silent.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        prompts_of(DATA, PromptConfig(num_few_shot=0), silent, "default")


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}",
        "{% for number in range(999999999) %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ messages[7].content }}",
        "{{ raise_exception('no') }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_a_chat_template_that_cannot_be_rendered_is_the_users_mistake(tmp_path: Path, template: str) -> None:
    file = tmp_path / "broken.jinja"
    file.write_text(template)
    with pytest.raises(ConfigError, match=r"broken\.jinja"):
        prompts_of(DATA, PromptConfig(num_few_shot=0), VOCABULARY, str(file))


def test_worked_examples_are_never_asked_and_change_with_their_own_seed_only() -> None:
    data = facts.load(facts.FactsConfig(num_samples=50))
    drawn = {seed: choose_shots(data, PromptConfig(seed=seed)) for seed in range(5)}
    assert len(set(drawn.values())) == 5
    assert choose_shots(data, PromptConfig(seed=3, brief_always=True)) == drawn[3]
    for shots in drawn.values():
        assert len({shot.id for shot in shots}) == 5
        assert not {shot.text for shot in shots} & {question.text for question in data.questions}


@pytest.mark.parametrize("changes", [{"num_few_shot": 0}, {"num_few_shot": 9}, {"seed": 1}])
def test_what_is_shown_never_changes_what_is_asked(changes: dict[str, int]) -> None:
    data = facts.load(facts.FactsConfig(num_samples=20))
    asked = [prompt.question for prompt in prompts_of(data, PromptConfig(**changes), VOCABULARY, None)]
    assert asked == [prompt.question for prompt in prompts_of(data, PromptConfig(), VOCABULARY, None)]


def test_more_worked_examples_than_there_are_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match=r"num_few_shot=2 .*\(1 that are not evaluated\)"):
        choose_shots(DATA, PromptConfig(num_few_shot=2))


def test_a_prompt_and_its_answer_must_fit_the_context() -> None:
    prompts = [Prompt(ASKED, "", tuple(range(length))) for length in (3, 10)]
    config = PromptConfig()
    check_lengths(prompts, config, max_new_tokens=5, context=15)
    check_lengths(prompts, config, max_new_tokens=5, context=None)
    with pytest.raises(ConfigError, match=r"question q has 10 tokens .* context is 14"):
        check_lengths(prompts, config, max_new_tokens=5, context=14)


@pytest.mark.parametrize(
    ("changes", "context", "ways"),
    [
        (
            {},
            14,
            "lower prompt.num_few_shot, or lower decoding.max_new_tokens, or take a model that holds more.",
        ),
        ({"num_few_shot": 0}, 14, "lower decoding.max_new_tokens, or take a model that holds more."),
        (
            {"num_few_shot": 0, "use_context": True},
            10,
            "set prompt.use_context=false, or take a model that holds more.",
        ),
        ({"num_few_shot": 0}, 10, "take a model that holds more."),
    ],
)
def test_only_what_can_help_is_advised(changes: dict[str, object], context: int, ways: str) -> None:
    prompts = [Prompt(ASKED, "", tuple(range(10)))]
    with pytest.raises(ConfigError, match=rf"context is {context}; {ways}"):
        check_lengths(prompts, PromptConfig(**changes), max_new_tokens=5, context=context)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=6))
def test_the_shared_prefix_is_the_longest_that_leaves_each_prompt_a_token(prompts: list[list[int]]) -> None:
    prompts = [tuple(prompt) for prompt in prompts]

    def fits(length: int) -> bool:
        return all(len(prompt) > length and prompt[:length] == prompts[0][:length] for prompt in prompts)

    assert [length for length in range(7) if fits(length)][-1] == shared_prefix(prompts)


CHOICE = Question("c", "Which?", ("B", "two"), options=("one", "two"))
TURN = Question("t", "And then?", ("that",), context="A story.", history=(("What first?", "this"),))
WORKED = Question("w", "2+2?", ("4",), solution="2 and 2 make 4.")


def text_of(config: PromptConfig, question: Question, *shots: Question, template: str | None = None) -> str:
    wrapped = ChatTemplate(VOCABULARY, None)
    wrapped.source = template
    return build_prompts([question], shots, config, wrapped)[0].text


def test_options_are_lettered_and_examples_answer_with_a_letter() -> None:
    config = PromptConfig(instruction="")
    block = "Question: Which?\nA. one\nB. two\nAnswer:"
    assert text_of(config, CHOICE, CHOICE) == f"{block} B\n\n{block}"


def test_earlier_turns_stand_before_a_question() -> None:
    shown = text_of(PromptConfig(instruction="", use_context=True), TURN)
    assert shown == "Context: A story.\nQuestion: What first?\nAnswer: this\nQuestion: And then?\nAnswer:"


def test_reasoning_is_shown_before_the_answer_and_asked_for() -> None:
    shown = text_of(PromptConfig(instruction="", reasoning=True), ASKED, WORKED)
    assert (
        shown == "Question: 2+2?\nReasoning: 2 and 2 make 4. The answer is 4.\n\nQuestion: Where?\nReasoning:"
    )


def test_examples_without_reasoning_are_not_shown_as_reasoned() -> None:
    data = QuestionSet((ASKED,), (SHOT, WORKED), "squad")
    config = PromptConfig(reasoning=True, num_few_shot=1)
    assert choose_shots(data, config) == (WORKED,)
    with pytest.raises(ConfigError, match=r"\(1 that are not evaluated; 1 more have no reasoning to show"):
        choose_shots(data, replace(config, num_few_shot=2))


def test_the_first_examples_in_order_where_the_set_asks_for_them() -> None:
    shots = tuple(Question(f"s{n}", f"Q{n}", ("a",)) for n in range(20))
    data = QuestionSet((ASKED,), shots, "squad", shots_in_order=True)
    assert choose_shots(data, PromptConfig(num_few_shot=5)) == shots[:5]


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    source = (
        "{{ instruction }}{% for shot in shots %}F: {{ shot.question }} A: {{ shot.answer }}\n{% endfor %}"
        "{% if context %}K: {{ context }}\n{% endif %}F: {{ question }}"
        "{% for option in options %} {{ option.letter }}) {{ option.text }}{% endfor %} A:"
    )
    config = PromptConfig(instruction="Antworte kurz.\n", template=source)
    assert text_of(config, ASKED, SHOT) == (
        "Antworte kurz.\nF: Who wrote it? A: Kuhn\nK: It was here.\nF: Where? A:"
    )
    assert text_of(config, CHOICE).endswith("F: Which? A) one B) two A:")
    path = tmp_path / "mine.jinja"
    path.write_text(source)
    assert text_of(replace(config, template=str(path)), ASKED, SHOT) == text_of(config, ASKED, SHOT)
    assert text_of(config, ASKED, template=TURNS) == f"<user>{text_of(config, ASKED)}<assistant>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no/such/file.jinja", r"prompt\.template=no/such/file\.jinja is neither a file nor a template"),
        ("{{ question", r"prompt\.template is no Jinja template"),
        ("{{ questoin }}", r"cannot be rendered for question q: 'questoin' is undefined"),
        ("{{ context }}", r"prompt\.template does not show the question"),
        ("{{ question.__class__.__mro__ }}", r"cannot be rendered|does not show the question"),
    ],
)
def test_a_template_that_cannot_be(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        text_of(PromptConfig(template=template), ASKED)


TURNS = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + TURNS
)
LATE = (  # as Mistral's: the system text stands in the last turn
    "{% set told = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% for message in messages if message['role'] != 'system' %}<{{ message['role'] }}>"
    "{% if loop.last and told %}{{ told }}\n\n{% endif %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
HIDING = (
    "{% for message in messages if message['role'] != 'system' %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% endfor %}"
)


def test_examples_and_instruction_as_turns() -> None:
    config = PromptConfig(instruction="Be brief.\n", turns=True)
    assert text_of(config, ASKED, SHOT, template=TURNS) == (
        "<system>Be brief.<user>Who wrote it?<assistant>Kuhn<user>Where?<assistant>"
    )
    assert text_of(config, ASKED, SHOT) == text_of(replace(config, turns=False), ASKED, SHOT)  # plain text


@pytest.mark.parametrize("template", [NO_SYSTEM, LATE, HIDING])
def test_an_instruction_stands_on_top_where_the_template_has_no_place_for_it(template: str) -> None:
    shown = text_of(PromptConfig(instruction="Be brief.\n", turns=True), ASKED, SHOT, template=template)
    assert shown.startswith("<user>Be brief.\n\nWho wrote it?<assistant>Kuhn<user>Where?")
    assert shown.count("Be brief.") == 1


def test_turns_of_a_conversation_are_turns() -> None:
    config = PromptConfig(system="", turns=True, use_context=True)
    assert text_of(config, TURN, template=TURNS) == (
        "<user>A story.\n\nWhat first?<assistant>this<user>And then?<assistant>"
    )


def test_a_typed_new_line_in_a_template_is_one() -> None:
    for typed in (r"Q: {{ question }}\nA:", r"Q: {{ question }}{{ '\n' }}A:"):  # as a shell hands it on
        assert text_of(PromptConfig(template=typed), ASKED) == f"Q: {ASKED.text}\nA:"


def test_the_assistants_turn_can_be_begun() -> None:
    config = PromptConfig(system="Choose.", prefill="The answer is", turns=True)
    assert text_of(config, CHOICE, template=TURNS) == (
        "<system>Choose.<user>Which?\nA. one\nB. two<assistant>The answer is"
    )
    shown = text_of(
        config, CHOICE, SHOT, template=TURNS
    )  # examples are begun as well: what follows looks like them
    assert shown.startswith(
        f"<system>Choose.<user>{SHOT.text}<assistant>The answer is {SHOT.references[0]}<user>"
    )
    assert "The answer is" not in text_of(config, CHOICE)  # in plain text a block ends in its label
    with pytest.raises(ConfigError, match=r"prompt\.prefill=.* ends in white space"):
        PromptConfig(prefill="The answer is ")
