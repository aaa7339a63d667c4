"""Chats: written as transformers writes them, with learned tokens and the answer in them."""

import copy
import functools

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AddedToken

from ptune.errors import TemplateError
from ptune.settings import VisibilityRule
from ptune.template.encoding.units import Passage
from ptune.template.language import Template
from ptune.template.parts import Role
from ptune.template.tokenizer import Tokens

# Chat templates in the manner of well-known LMs, written anew.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMED = (
    "{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}"
    "<|eot|>{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}"
    "{% endif %}{% if m.role == 'user' %}[INST] {{ m.content.strip() }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
THINKING = (
    "{{ strftime_now('%d %b %Y') }}\n{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think></think>\n\n{% endif %}{% endif %}"
)
STRIPPING = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PLAIN = (
    "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
CONTROL = ["<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "<|eot|>"]
STRIPS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATES = {
    "chatml": CHATML,
    "trimmed": TRIMMED,
    "no-system": NO_SYSTEM,
    "thinking": THINKING,
    "stripping": STRIPPING,
    "plain": PLAIN,
}
TOKENIZERS = {
    "gpt2": lambda: tiny.byte_level(False),
    "llama": tiny.prepended,
    "smollm": tiny.merging,
    "t5": tiny.unigram,
    "bert": tiny.wordpiece,
}


@functools.cache
def tokens_of(name, template):
    tokenizer = copy.deepcopy(TOKENIZERS[name]())
    special = [AddedToken(text, special=True) for text in CONTROL]
    special += [AddedToken(text, rstrip=True, special=True) for text in STRIPS]
    tokenizer.add_tokens(special, special_tokens=True)
    # control tokens that are no special ones
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    tokenizer.chat_template = TEMPLATES[template]
    if tokenizer.bos_token is None:
        tokenizer.add_special_tokens({"bos_token": "<s>"})
    if tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"eos_token": "</s>"})
    return Tokens(tokenizer)


def ids_of(source, row, tokens, kind="causal"):
    template = Template.parse(source).for_lm(tokens, kind, whole=True)[0]
    return list(template.encode(row, tokens, kind).ids)


def theirs(tokens, messages):
    template = tokens.tokenizer.chat_template
    return tokens.tokenizer.apply_chat_template(
        messages,
        chat_template=template.replace("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        add_generation_prompt=True,
        return_dict=False,
        enable_thinking=False,
    )


WORDS = st.text("abeistnr .,'\n\t　é", min_size=1, max_size=12).filter(str.strip)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(system=WORDS, text=WORDS, answer=WORDS, more=WORDS)
def test_without_learned_tokens_it_is_what_transformers_writes(
    name, template, system, text, answer, more
):
    tokens = tokens_of(name, template)
    source = "{role:user}Review: {text}{role:assistant}{answer}{role:user}{more}{role:assistant}"
    messages = [
        {"role": "user", "content": f"Review: {text}"},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": more},
    ]
    if template != "no-system":
        source = "{role:system}{system}" + source
        messages.insert(0, {"role": "system", "content": system})
    row = {"system": system, "text": text, "answer": answer, "more": more}
    encoded = ids_of(source.removesuffix("{role:assistant}"), row, tokens)
    assert encoded == theirs(tokens, messages)
    behind = Template.parse(source + "{mask}").for_lm(tokens, "causal")[0]
    gap = [part for part in behind.parts[-2:-1] if getattr(part, "text", "") == " "]
    if not gap:
        masked = behind.encode(row, tokens, "causal")
        assert list(masked.ids) == theirs(tokens, messages)
        assert masked.answer_positions == (len(masked.ids) - 1,)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_written_answer_ends_as_the_chat_template_ends_a_message(name):
    """The tokens of an answer and its end are those of the assistant's message."""
    for template in ("chatml", "no-system"):
        tokens = tokens_of(name, template)
        written = Template.parse("{role:user}{text}{role:assistant}{mask}")
        bound = written.for_lm(tokens, "causal")[0]
        answer = [*tokens.words(["Vienna is great"], bound.place)[0], bound.end]
        ids = list(bound.encode({"text": "is it"}, tokens, "causal", answer=answer).ids)
        messages = [
            {"role": "user", "content": "is it"},
            {"role": "assistant", "content": "Vienna is great"},
        ]
        whole = tokens.tokenizer.apply_chat_template(messages, return_dict=False)
        assert [*ids, bound.end] == whole[: len(ids) + 1], template


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_row_writes_no_control_token(name, template):
    """Neither special tokens nor others that the chat template writes come from a text."""
    tokens = tokens_of(name, template)
    source = "{role:user}{text}<|im_end|>{role:assistant}{mask}"
    hostile = "".join([*CONTROL, *STRIPS, "<think>", "</s>"])
    harmless = ids_of("{role:user}{text}{role:assistant}{mask}", {"text": "a"}, tokens)
    written = ids_of(source, {"text": hostile}, tokens)
    control = {tokens.tokenizer.convert_tokens_to_ids(t) for t in [*CONTROL, *STRIPS, "</s>"]}
    if template == "thinking":
        control.add(tokens.tokenizer.convert_tokens_to_ids("<think>"))

    def count(ids):
        return sorted(token for token in ids if token in control)

    assert count(written) == count(harmless)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("{x}{y}", {"x": "<thi", "y": "nk>"}),
        ("<{x}>", {"x": "think"}),
        ("{x}{y}", {"x": "<|im_", "y": "end|>"}),
        ("{x}k>", {"x": "<think><thin"}),
    ],
)
def test_texts_side_by_side_write_no_control_token_together(name, source, row):
    tokens = tokens_of(name, "thinking")
    ids = ids_of(f"{{role:user}}{source}{{role:assistant}}{{mask}}", row, tokens)
    harmless = ids_of("{role:user}{x}{role:assistant}{mask}", {"x": "a"}, tokens)
    for token in ("<think>", *CONTROL):
        control = tokens.tokenizer.convert_tokens_to_ids(token)
        assert ids.count(control) == harmless.count(control), token


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("text", ["a <think> there</think>", "<think>a", "it <|im_end|> is great"])
def test_a_passage_in_a_chat_has_no_control_token_and_its_spans_are_those_of_the_text(name, text):
    tokens = tokens_of(name, "thinking")
    if not tokens.tokenizer.is_fast:
        pytest.skip("this tokenizer does not tell where its tokens stand")
    passage = Passage(text=text, lead=" ").in_chat(tokens)
    ids = {id_ for piece in passage.pieces(tokens, begins=False) for id_ in piece.ids}
    names = [*CONTROL, *STRIPS, "<think>", "</think>"]
    assert ids.isdisjoint(tokens.tokenizer.convert_tokens_to_ids(names))
    spans = passage.spans(tokens)
    assert [begin for begin, _ in spans] == sorted(begin for begin, _ in spans)
    seen = {place for begin, end in spans for place in range(begin, end)}
    assert seen >= {place for place, sign in enumerate(text) if sign.strip()}
    assert all(end - begin <= len(text) for begin, end in spans)
    first = text.index("a")
    assert "a" in next(text[begin:end] for begin, end in spans if begin <= first < end)


def test_learned_tokens_stand_anywhere_in_it():
    tokens = tokens_of("gpt2", "chatml")
    template = Template.parse(
        "{soft:2}{role:system}{prefix:3}Be good.{role:user}{soft:1@a} {text}{soft@a}"
        "{role:assistant}It is {mask}"
    )
    bound, dropped = template.for_lm(tokens, "causal")
    row = bound.encode({"text": "great"}, tokens, "causal")
    plain = ids_of(
        "{role:system}Be good.{role:user} {text}{role:assistant}It is {mask}",
        {"text": "great"},
        tokens,
    )
    assert [slot for slot in row.soft_slots if slot >= 0] == [0, 1, 2, 2] and dropped == ""
    assert row.soft_slots[:2] == (0, 1) and len(row.prefix) == 3
    assert row.ids[row.prefix[0] - 1 : row.prefix[0] + 1] == (
        row.ids[row.prefix[0] - 1],
        tokens.follow("Be")[0],
    )
    assert [id_ for id_, slot in zip(row.ids, row.soft_slots) if slot < 0] == plain
    assert bound.place == "spaced"


def test_messages_in_which_not_all_see_each_other():
    tokens = tokens_of("gpt2", "chatml")
    template = Template.parse(
        "{role:system}Be good.{role:user}{soft:1} {text} ?{role:assistant}It is {mask}"
    )
    pairs = [("soft", "text"), ("text", "words"), ("words", "mask")]
    template = template.with_visibility(
        [VisibilityRule(hide=hide, from_=blind) for hide, blind in pairs]
    )
    row = template.for_lm(tokens, "causal")[0].encode({"text": "great film"}, tokens, "causal")
    kinds = {(4, 2): "w", (1, 0): "s", (2, 1): "f", (4, 2 + 4): "r"}
    shown = "".join(kinds[one] for one in row.visibility.tokens)
    before, _, behind = shown.partition("s")
    assert set(before) == {"w"} and behind.startswith("ff") and set(behind[2:-1]) == {"w"}
    assert shown.count("f") == len(tokens.follow(" great film")) and shown[-1] == "r"


def test_soft_tokens_in_front_stand_behind_the_token_that_begins_a_text():
    tokens = tokens_of("llama", "trimmed")
    bound = Template.parse("{soft:2}{role:user}{text}{role:assistant}{mask}").for_lm(
        tokens, "causal"
    )[0]
    row = bound.encode({"text": "great"}, tokens, "causal")
    assert row.ids[0] == tokens.tokenizer.bos_token_id and row.soft_slots[:4] == (-1, 0, 1, -1)


def test_a_masked_lm_reads_its_answer_within_a_message():
    tokens = tokens_of("bert", "chatml")
    bound, dropped = Template.parse("{role:user}{text} It is {mask} .").for_lm(tokens, "masked")
    row = bound.encode({"text": "great"}, tokens, "masked")
    assert row.ids[row.answer_positions[0]] == tokens.mask and dropped == ""
    assert tokens.show(row.ids[-1]) == "<|im_end|>"


def test_a_causal_lm_reads_its_answer_within_the_last_message():
    tokens = tokens_of("gpt2", "chatml")
    bound, dropped = Template.parse("{role:user}{text} It is {mask}.").for_lm(tokens, "causal")
    assert dropped == ".<|im_end|>"
    row = bound.encode({"text": "great"}, tokens, "causal")
    assert tokens.show(row.ids[-1]) == " is"


@pytest.mark.parametrize(
    ("source", "template", "message"),
    [
        ("{role:system}a{role:user}{x}{role:assistant}{mask}", "no-system", "no system here"),
        ("Hello {role:user}{x}{role:assistant}{mask}", "chatml", "before the first message"),
        ("{role:assistant}{mask}", "chatml", "nothing before the assistant's message"),
        ("{role:user}{x}{sep}{role:assistant}{mask}", "chatml", "its own tokens between"),
        ("{role:user}{x}{mask}{role:user}{x}", "chatml", "{role:user}' behind {mask}"),
        ("{role:user}{x}", "chatml", "has no {mask}"),
    ],
)
def test_what_is_no_chat_is_one_clear_message(source, template, message):
    tokens = tokens_of("gpt2", template)
    with pytest.raises(TemplateError) as error:
        Template.parse(source).for_lm(tokens, "causal")
    assert message in str(error.value)


def test_an_lm_without_a_chat_template_is_told():
    with pytest.raises(TemplateError, match="no chat template"):
        Template.parse("{role:user}{x}{role:assistant}{mask}").for_lm(
            Tokens(tiny.byte_level(False)), "causal"
        )


def test_a_message_that_the_chat_template_leaves_out_is_told():
    tokens = tokens_of("gpt2", "chatml")
    tokens.tokenizer.chat_template = "{{ messages[-1].content }}"
    try:
        with pytest.raises(TemplateError, match="leaves out a message"):
            Template.parse("{role:system}{x}{role:user}a{role:assistant}{mask}").for_lm(
                tokens, "causal"
            )
    finally:
        tokens.tokenizer.chat_template = CHATML


def test_roles_are_parsed():
    template = Template.parse("{role:user}{role}")
    assert template.parts[0] == Role("user") and template.fields == ("role",)
    with pytest.raises(TemplateError, match="A message begins with"):
        Template.parse("{role:}{x}")
