#!/usr/bin/env python3
"""Trainings by the command line: a tokenizer, a small model from scratch, its log and its checkpoints, and what is said
when something is wrong.

training.py ENGINE: prints a line "ok ..." or "not ok ..." per case, and "done" at the end. Standard library only.
"""
import array
import json
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ENGINE = sys.argv[1]
CONFIG = {"architectures": ["MiniMaxM1ForCausalLM"], "model_type": "minimax_m1", "vocab_size": 320, "hidden_size": 32,
          "num_hidden_layers": 2, "attn_type_list": [0, 1], "num_attention_heads": 2, "num_key_value_heads": 1,
          "head_dim": 16, "rotary_dim": 8, "rope_theta": 10000, "intermediate_size": 32, "num_local_experts": 4,
          "num_experts_per_tok": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5, "postnorm": True,
          "layernorm_full_attention_alpha": 1.41, "layernorm_full_attention_beta": 1.0,
          "layernorm_linear_attention_alpha": 1.41, "layernorm_linear_attention_beta": 1.0,
          "layernorm_mlp_alpha": 1.41, "layernorm_mlp_beta": 1.0, "tie_word_embeddings": False,
          "max_position_embeddings": 256}
LINES = [{"prompt": f"Say {word}.", "reasoning": f"The word is {word}.", "answer": word}
         for word in ("red", "green", "blue", "white", "black", "brown", "pink", "grey")]


def report(ok, name, why=""):
    print(("ok " if ok else "not ok ") + name + (": " + str(why) if why and not ok else ""), flush=True)


def engine(*arguments, **more):
    return subprocess.run([ENGINE, *map(str, arguments)], capture_output=True, text=True, **more)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Cases:
    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data.jsonl"
        self.config = folder / "config.json"
        self.tokenizer = folder / "tokenizer"
        self.data.write_text("".join(json.dumps(line) + "\n" for line in LINES * 4))
        self.config.write_text(json.dumps(CONFIG))

    def train(self, out, *options):
        return ["train", "--config", self.config, "--tokenizer", self.tokenizer, "--data", self.data, "--out",
                self.folder / out, "--batch-tokens", 200, "--lr", "1e-2", "--threads", 1, *options]

    def learns_a_tokenizer(self):
        made = engine("tokenizer-train", "--data", self.data, "--vocab-size", 320, "--out", self.tokenizer)
        report(made.returncode == 0 and "320 tokens" in made.stdout, "tokenizer-train", made.stderr)
        written = json.loads((self.tokenizer / "tokenizer.json").read_text())
        ids = list(written["model"]["vocab"].values()) + [token["id"] for token in written["added_tokens"]]
        report(sorted(ids) == list(range(320)), "every id once")
        again = engine("tokenizer-train", "--data", self.data, "--vocab-size", 320, "--out", self.tokenizer)
        report(again.returncode == 1 and "--force" in again.stderr, "a tokenizer is not replaced", again.stderr)

    def logs_steps(self):
        log = self.folder / "log"
        done = engine(*self.train("straight", "--steps", 12, "--held-out", "0.1", "--evaluate-every", 5, "--log", log))
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        report(done.returncode == 0 and done.stdout == "", "train", done.stderr)
        report([line["step"] for line in lines] == list(range(1, 13)), "a line for each step")
        report(["held_out_loss" in line for line in lines] == [n in (5, 10, 12) for n in range(1, 13)],
               "held-out losses")
        report(lines[-1]["loss"] < lines[0]["loss"], "the loss falls", lines)
        asked = engine("generate", "--model", self.folder / "straight", "--prompt", "Say red.", "--max-tokens", 3)
        report(asked.returncode == 0, "the model is served", asked.stderr)

    def goes_on(self):
        options = ["--steps", 3000, "--save-every", 1000]
        running = subprocess.Popen([ENGINE, *map(str, self.train("parts", *options))], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        for _ in range(5):
            running.stdout.readline()
        running.send_signal(signal.SIGINT)
        rest, said = running.stdout.read(), running.stderr.read()  # not communicate, which misses what is buffered
        running.wait()
        steps = 5 + len(rest.splitlines())
        report(running.returncode == 1 and f"interrupted after step {steps} of 3000" in said and "--resume" in said,
               "an interrupt is told", said)
        more = engine(*self.train("parts", "--steps", steps + 4, "--decay", "none", "--resume"))
        lines = [json.loads(line) for line in more.stdout.splitlines()]
        report([line["step"] for line in lines] == list(range(steps + 1, steps + 5)), "it goes on", more.stderr)

    def nobody_reads(self):
        """What reads the lines may end before the training does: it is trained and saved, and the lines are missed."""
        running = subprocess.Popen([ENGINE, *map(str, self.train("unread", "--steps", 300))], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        running.stdout.readline()
        running.stdout.close()
        said = running.stderr.read()
        report(running.wait() == 1 and "could not write all lines of the log" in said, "a closed stdout is told", said)
        report("training.safetensors" in files(self.folder / "unread"), "and ends no training")

    def same_bits(self):
        """Killed between two checkpoints, a training goes on as if nothing had happened."""
        options = ["--steps", 200, "--save-every", 20, "--seed", 7]
        whole = engine(*self.train("whole", *options))
        killed = subprocess.Popen([ENGINE, *map(str, self.train("killed", *options))], stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL)
        for _ in range(70):
            killed.stdout.readline()
        killed.kill()
        killed.communicate()
        (self.folder / "killed" / "training.safetensors.12.tmp").write_text("as if it was writing")
        rest = engine(*self.train("killed", *options, "--resume"))
        report(whole.returncode == 0 and rest.returncode == 0, "a killed training goes on", rest.stderr)
        names = ["model.safetensors", "training.safetensors"]
        a, b = files(self.folder / "whole"), files(self.folder / "killed")
        report(all(a[name] == b[name] for name in names), "to the same bits")
        report(a.keys() == b.keys(), "what it had not finished is removed", b.keys())

    def full_disk(self):
        before = files(self.folder / "whole")
        done = engine(*self.train("whole", "--steps", 204, "--save-every", 2, "--seed", 7, "--resume"),
                      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)))
        report(done.returncode == 1 and done.stderr.count("no room for") == 2 and len(done.stdout.splitlines()) == 4,
               "a full disk is told, and the training tries again", done.stderr)
        report(files(self.folder / "whole") == before, "the checkpoint before stays")

    def knows_the_world_of_nano(self):
        """make nano takes hours; here, that its data can be learnt from and is the same again."""
        made = []
        for name in ("one.jsonl", "two.jsonl"):
            path = self.folder / name
            subprocess.run([sys.executable, "tools/nano/make_data.py", "1", "2", "300", str(path)], check=True)
            made.append(path.read_bytes())
        report(made[0] == made[1] and made[0].count(b"\n") == 300, "m1-nano's examples follow from the seed")
        out = self.folder / "world"
        done = engine("tokenizer-train", "--data", path, "--vocab-size", 600, "--single-digits", "--out", out)
        tokens = json.loads((out / "tokenizer.json").read_text())["model"]["vocab"] if done.returncode == 0 else {}
        report(done.returncode == 0 and not [t for t in tokens if len(t) > 1 and any(c.isdigit() for c in t)],
               "no token has two digits", done.stderr)

    def adapt(self, out, *options):
        return ["train", "--model", self.folder / "straight", "--data", self.data, "--out", self.folder / out,
                "--batch-tokens", 200, "--lr", "1e-2", *options]

    def logits(self, model, *options):
        ids = self.folder / "ids"
        ids.write_text(" ".join(str(17 * i % 256) for i in range(40)))
        done = engine("logits", "--model", model, "--ids", ids, "--out", self.folder / "logits", *options)
        values = array.array("f", (self.folder / "logits").read_bytes() if done.returncode == 0 else b"")
        return list(values)

    def trains_an_adapter(self):
        """Of a base in any type: it learns, goes on to the same bits, is served, and gives the same when it is merged."""
        base, adapter = self.folder / "straight", self.folder / "adapter"
        before = files(base)
        done = engine(*self.adapt("adapter", "--rank", 4, "--steps", 30, "--seed", 5))
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        report(done.returncode == 0 and lines[-1]["loss"] < lines[0]["loss"] - 0.1, "an adapter learns", done.stderr)
        report(sorted(files(adapter)) == ["adapter_config.json", "adapter_model.safetensors", "training.safetensors"]
               and files(base) == before, "its folder has the adapter alone, and the base stays as it is")
        config = json.loads((adapter / "adapter_config.json").read_text())
        report(config["r"] == 4 and config["modules_to_save"] == ["block_sparse_moe.gate"]
               and sorted(config["target_modules"]) == sorted(["qkv_proj", "output_gate", "out_proj", "q_proj", "k_proj",
                                                              "v_proj", "o_proj", "w1", "w2", "w3"]),
               "it changes attention, experts and router", config)
        killed = subprocess.Popen([ENGINE, *map(str, self.adapt("adapter-killed", "--rank", 4, "--steps", 30, "--seed", 5,
                                                                "--save-every", 4))],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(10):
            killed.stdout.readline()
        killed.kill()
        killed.communicate()
        rest = engine(*self.adapt("adapter-killed", "--rank", 4, "--steps", 30, "--seed", 5, "--resume"))
        report(rest.returncode == 0 and files(self.folder / "adapter-killed") == files(adapter),
               "it goes on to the same bits", rest.stderr)
        other = engine(*self.adapt("adapter-killed", "--rank", 5, "--steps", 31, "--seed", 5, "--resume"))
        report(other.returncode == 1 and "another rank" in other.stderr, "not with another rank", other.stderr)

        merged = engine("merge", "--model", base, "--adapter", adapter, "--out", self.folder / "merged")
        served = self.logits(base, "--adapter", adapter)
        alone, together = self.logits(base), self.logits(self.folder / "merged")
        difference = max((abs(a - b) for a, b in zip(served, together)), default=9)
        report(merged.returncode == 0 and served and difference < 0.05
               and max(abs(a - b) for a, b in zip(served, alone)) > 10 * difference, "merged, it gives the same logits",
               difference)
        f32 = engine(*self.train("f32", "--steps", 2, "--f32"))
        trained = engine("train", "--model", self.folder / "f32", "--data", self.data, "--out", self.folder / "on-f32",
                         "--batch-tokens", 200, "--lr", "1e-2", "--steps", 5, "--rank", 2)
        merged = engine("merge", "--model", self.folder / "f32", "--adapter", self.folder / "on-f32", "--out",
                        self.folder / "merged-f32")
        served = self.logits(self.folder / "f32", "--adapter", self.folder / "on-f32")
        difference = max((abs(a - b) for a, b in zip(served, self.logits(self.folder / "merged-f32"))), default=9)
        report(all(run.returncode == 0 for run in (f32, trained, merged)) and served and difference < 1e-4,
               "with F32, to rounding", difference)
        options = ["train", "--model", base, "--data", self.data, "--batch-tokens", 200, "--steps", 1, "--out"]
        losses = [json.loads(engine(*options, self.folder / out, *more).stdout)["loss"]
                  for out, more in (("adapter-more", ["--adapter", adapter]), ("adapter-new", ["--rank", 4]))]
        report(losses[0] < losses[1] - 0.05, "another training begins with it", losses)
        for form in ("q8_0", "q4", "fp8"):
            done = engine(*self.adapt(form, "--rank", 2, "--steps", 12, "--weight-format", form))
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            report(done.returncode == 0 and lines[-1]["loss"] < lines[0]["loss"], f"over {form}", done.stderr)
        gguf = self.folder / "base.gguf"
        engine("quantize", base, gguf)
        done = engine("train", "--model", gguf, "--data", self.data, "--out", self.folder / "of-gguf", "--steps", 2,
                      "--batch-tokens", 200, "--targets", "w2,head")
        report(done.returncode == 0 and bool(self.logits(base, "--adapter", self.folder / "of-gguf")),
               "of a GGUF file, for what that was made of as well", done.stderr)

    def says_what_is_wrong_with_adapters(self):
        cases = [("a target that is unknown", self.adapt("no", "--targets", "attention,norm"), 1, '"norm" is nothing'),
                 ("nothing to train", self.adapt("no", "--rank", 0, "--expert-rank", 0, "--targets", "attention,w1"), 1,
                  "changes nothing"),
                 ("a rank that is too large", self.adapt("no", "--rank", 5000), 1, "between 0 and 1024"),
                 ("an alpha of 0", self.adapt("no", "--alpha", 0), 1, "alpha of an adapter"),
                 ("an adapter from scratch", self.train("no", "--rank", 4), 2, "an adapter needs --model"),
                 ("an adapter that is there", self.adapt("adapter", "--rank", 4), 1, "has an adapter already"),
                 ("a model in its place", self.adapt("straight", "--rank", 4, "--force"), 1, "has a model already"),
                 ("all weights in an adapter's place", self.train("adapter", "--force"), 1, "has an adapter already"),
                 ("an adapter's training as one of weights",
                  [*self.adapt("adapter"), "--resume"], 1, "is not of all weights"),
                 ("a format for all weights", self.adapt("no", "--weight-format", "q4"), 2, "is for adapters"),
                 ("an adapter of another base",
                  ["train", "--model", self.folder / "whole", "--adapter", self.folder / "adapter", "--data", self.data,
                   "--out", self.folder / "no"], 1, "made for another model")]
        for name, arguments, code, says in cases:
            done = engine(*arguments)
            report(done.returncode == code and says in done.stderr and done.stdout == "", name, done.stderr)
        report(not [p for p in (self.folder / "no").glob("adapter*")], "no adapter was written")

    def says_what_is_wrong(self):
        bad = self.folder / "bad.jsonl"
        bad.write_text('{"text": "fine"}\n{"text": "fine", "label": 3}\n')
        long = self.folder / "long.jsonl"
        long.write_text(json.dumps({"prompt": "x" * 400, "answer": "y"}) + "\n" + self.data.read_text())
        missing = [ENGINE, "train", "--data", self.data, "--out", self.folder / "no"]
        cases = [("a key that is unknown", self.train("no", bad), 1, 'bad.jsonl, line 2: "label" is no key'),
                 ("an example that is too long", self.train("no", long), 1, "long.jsonl, line 1"),
                 ("no model", missing[1:], 2, "needs --model DIR or --config FILE"),
                 ("a decay that is unknown", self.train("no", "--decay", "fast"), 2, "--decay takes none, linear"),
                 ("a rate that is none", self.train("no", "--lr", "nan"), 1, "the learning rate must be"),
                 ("a model that is there", self.train("straight"), 1, "--resume to go on"),
                 ("a GGUF file", ["train", "--model", bad, "--data", self.data, "--out", self.folder / "no"], 1,
                  "is no folder with config.json")]
        for name, arguments, code, says in cases:
            done = engine(*arguments)
            report(done.returncode == code and says in done.stderr and done.stdout == "", name, done.stderr)
        report(not (self.folder / "no" / "model.safetensors").exists(), "nothing was trained")
        done = engine(*self.train("skipped", long, "--too-long", "skip", "--steps", 1))
        report(done.returncode == 0 and "1 too long and skipped" in done.stderr, "what is skipped is counted",
               done.stderr)


def main():
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(Path(folder))
        for case in (cases.learns_a_tokenizer, cases.logs_steps, cases.goes_on, cases.nobody_reads, cases.same_bits,
                     cases.full_disk, cases.knows_the_world_of_nano, cases.trains_an_adapter,
                     cases.says_what_is_wrong_with_adapters, cases.says_what_is_wrong):
            case()
    print("done")


main()
