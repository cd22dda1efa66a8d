"""Tokenisers of public models: from a folder, from the metadata of a GGUF file; chats; texts that come a token at a time."""

import json

import pytest
from gguf_files import write
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from thalweg.data.subwords import learn_subwords
from thalweg.data.tokens import Tokens, render, tokens_of_folder, tokens_of_gguf
from thalweg.gguf import GGUF
from thalweg.weights import CorruptFile

TEXTS = ["the valley and the river", "the way down that water finds", "Ångström, 水往低处流 🏞️", "x = [1, 2, 345]"]
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi <3"}]


@pytest.fixture(scope="module")
def learned():
    """A byte-level tokeniser as text, with marks at its beginning."""
    return Tokenizer.from_str(learn_subwords(TEXTS, 300))


@pytest.fixture
def of_gguf(learned, tmp_path):
    """The same tokeniser as llama.cpp's converter writes it."""
    model = json.loads(learned.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    metadata = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": [3 if n < 4 else 1 for n in range(len(pieces))],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]], "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 3, "tokenizer.chat_template": CHATML, "tokenizer.ggml.add_bos_token": False,
    }  # fmt: skip
    return lambda **more: tokens_of_gguf(
        GGUF(
            write(
                tmp_path / "t.gguf",
                {
                    name: value
                    for name, value in (metadata | {f"tokenizer.ggml.{name}": value for name, value in more.items()}).items()
                    if value is not None
                },
                {},
            )
        )
    )


@pytest.mark.parametrize("text", [*TEXTS, "", " two  spaces\n\nand lines ", "<eos>"])
def test_the_tokens_in_a_gguf_file_are_those_of_the_tokeniser_it_was_made_of(learned, of_gguf, text):
    tokens = of_gguf()
    assert tokens.encode(text) == learned.encode(text).ids
    assert tokens.decode(tokens.encode(text)) == ("" if text == "<eos>" else text)
    assert tokens.ends == {3}


def test_a_beginning_is_put_before_a_text_where_the_file_says_so_and_not_before_a_chat(of_gguf):
    plain, begun = of_gguf(), of_gguf(add_bos_token=True)
    assert begun.encode("the") == [2, *plain.encode("the")]
    assert begun.chat(CHAT) == plain.chat(CHAT)


def test_digits_of_smollm_stand_alone(of_gguf):
    assert of_gguf(pre="smollm").tokenizer.encode("the 345").tokens[-3:] == ["3", "4", "5"]


def test_a_text_of_llama_3_begins_with_its_mark_and_whole_words_are_not_cut(of_gguf, learned):
    tokens = of_gguf(pre="llama-bpe", add_bos_token=None)
    assert tokens.encode("the") == [2, *learned.encode("the").ids]
    assert tokens.tokenizer.model.ignore_merges
    assert not of_gguf().tokenizer.model.ignore_merges


def test_pieces_with_scores_are_merged_best_first(tmp_path):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "c", "▁a", "ab", "bc", "▁ab"]
    first = pieces.index("▁a")
    scores = [0.0] * first + [-3.0, -2.0, -1.0, -4.0]
    types = [2, 3, 3, *[6] * 256, *[1] * 8]
    metadata = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": pieces, "tokenizer.ggml.scores": scores,
                "tokenizer.ggml.token_type": types, "tokenizer.ggml.bos_token_id": 1,
                "tokenizer.ggml.eos_token_id": 2}  # fmt: skip
    tokens = tokens_of_gguf(GGUF(write(tmp_path / "t.gguf", metadata, {})))
    assert tokens.tokenizer.encode("abc").tokens == ["<s>", "▁a", "bc"]  # bc is better than ab
    assert tokens.tokenizer.encode("ab ab").tokens == ["<s>", "▁ab", "▁ab"]
    for text in ("abc 水 ab", " a", "水🏞️"):
        assert tokens.decode(tokens.encode(text)) == text
        unfolding = tokens.unfolding()
        assert "".join([unfolding.add(token) for token in tokens.encode(text)]) + unfolding.rest() == text
    begun, more = tokens.encode("ab"), [pieces.index("▁a"), pieces.index("bc")]
    for before, said in ((begun, " abc"), ([1], "abc"), ([], "abc"), ([*begun, 2], " abc"), (tokens.encode("水")[:-1], "abc")):
        behind = tokens.unfolding(before)
        assert "".join(map(behind.add, more)) + behind.rest() == said


@pytest.mark.parametrize(("more", "words"), [({"model": "bert"}, "model='bert'"), ({"pre": "odd"}, "pre='odd'")])
def test_a_kind_that_is_not_understood_is_refused_by_name(of_gguf, more, words):
    with pytest.raises(ValueError, match=words):
        of_gguf(**more)


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json"])
def test_a_folder_has_the_tokeniser_whole_or_in_two_files(learned, tmp_path, form):
    if form == "tokenizer.json":
        learned.save(str(tmp_path / form))
    else:
        learned.model.save(str(tmp_path))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 7]}')
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<eos>"}, "chat_template": CHATML}))
    tokens = tokens_of_folder(tmp_path)
    assert [tokens.encode(text) for text in TEXTS] == [learned.encode(text).ids for text in TEXTS]
    assert (tokens.ends, tokens.named["eos_token"]) == ({learned.token_to_id("<eos>"), 3, 7}, "<eos>")
    (tmp_path / "chat_template.jinja").write_text("{{ eos_token }}")
    assert render(tokens_of_folder(tmp_path).template, CHAT, tokens.named) == "<eos>"


def test_a_folder_without_a_tokeniser_or_with_half_a_one_is_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no tokeniser: expected tokenizer\.json, or vocab\.json and merges\.txt"):
        tokens_of_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model":')
    with pytest.raises(CorruptFile, match=r"tokenizer\.json is damaged"):
        tokens_of_folder(tmp_path)


def test_a_chat_is_rendered_up_to_where_the_model_answers(learned):
    assert render(CHATML, CHAT, {}) == (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi <3<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(ValueError, match="no chat template"):
        Tokens(learned, []).chat(CHAT)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[", "chat template of the model refuses"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)
def test_a_template_refuses_and_reaches_nothing_else(template, words):
    with pytest.raises(ValueError, match=words):
        render(template, CHAT, {})


@given(st.binary(max_size=40))
def test_text_that_comes_a_token_at_a_time_is_the_text_of_all_tokens_and_shows_no_half_letters(learned, held):
    alphabet = {letter: learned.token_to_id(letter) for letter in learned.get_vocab() if len(letter) == 1}
    letters = bytes_as_letters()
    tokens = [alphabet[letters[byte]] for byte in held]
    unfolding = Tokens(learned, []).unfolding()
    pieces = [unfolding.add(token) for token in tokens]
    assert "".join(pieces) + unfolding.rest() == held.decode("utf8", errors="replace")
    whole, shown = held.decode("utf8", errors="replace"), ""
    for count, piece in enumerate(pieces, 1):
        shown += piece
        assert whole.startswith(shown)
        if not piece:
            assert held[:count].decode("utf8", errors="replace").endswith("\ufffd")  # waited only where it had to


def bytes_as_letters():
    """The letters that byte-level tokenisers write for the bytes 0 to 255: themselves, or others where they cannot be seen."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(byte if byte in seen else next(other)) for byte in range(256)]


def test_a_letter_of_several_tokens_appears_when_it_is_whole(learned):
    tokens = Tokens(learned, [])
    flag = learned.encode("🏞").ids
    assert len(flag) > 1
    unfolding = tokens.unfolding()
    assert [unfolding.add(token) for token in flag] == [*[""] * (len(flag) - 1), "🏞"]
