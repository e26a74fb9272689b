"""What a report of 10,000 questions x 30 systems costs its reader: size, the first view, every view, a question, a filter.

The bounds that the project keeps to: at most 25 MB, the first view within 2 s, a question within 0.3 s. Needs Chromium and
playwright; the page is opened from disk, every figure is the median of several tries, the slowest beside it. What the page's
main thread computed meanwhile stands in front of "busy": on a machine that others use, too, it is what an idle one would take.

    python tests/benchmarks/bench_report.py [--questions N] [--systems N] [--file REPORT.html]
"""

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from moco_core import cli

try:
    from playwright.sync_api import sync_playwright
except ModuleNotFoundError:
    sync_playwright = None

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SINGLES = 6
WORDS = ["the", "ray", "is", "deflected", "by", "fields", "as", "charge", "moves", "and", "force", "grows", "with", "speed"]
BOUNDS = {"size": 25.0, "first view": 2.0, "a question": 0.3}
VIEWS = ("differences", "questions", "cost", "audit", "provenance", "verdict")


def said(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


def write_run(out, place, questions):
    """Write the finished run of one system: its replies, and of methods a call to every model, whose replies were read."""
    single, label, rng = place < SINGLES, f"system number {place}", random.Random(place)
    folder = out / f"d-{place}-s0"
    folder.mkdir(parents=True)
    models = [f"m{i}" for i in range(SINGLES)]
    cost = {"prompt": 900, "completion": 500, "calls": 9, "cached": 9, "seconds": 1.0, "untimed": 0, "parameters": 1e6}
    config = {
        "pool": {"name": "p"}, "dataset": {"name": "d"}, "metric": {"name": "exact_match"}, "seed": 0,
        "method": {"name": "single", "model": models[place]} if single else {"name": label},
        "sampling": {}, "dev": 10, "test": questions,
    }  # fmt: skip
    with (folder / "records.jsonl").open("w") as records, (folder / "units.jsonl").open("w") as units:
        for i in range(questions):
            score, text = int((i * 7919 + 13) % 97 < 45 + rng.randrange(20)), said(rng, 60)
            asked = f"What is question {i}? {said(random.Random(i), 30)}"
            calls = [
                {"model": m, "kind": "generate", "key": "k", "cached": True, "prompt_tokens": 90, "completion_tokens": 60,
                 "seen": {"messages": [["user", asked]]}, "said": {"text": f"{i * (j + 3)} {text[:80]}", "finish": "eos"}}
                for j, m in enumerate(models[:1] if single else models)
            ]  # fmt: skip
            row = {
                "index": i, "id": f"q{i}", "subset": f"subset {i % 12}", "question": asked, "references": [str(i)],
                "choice": None, "reply": {"text": text, "finish": "eos", "spans": [], "abstained": False, "meta": {}},
                "answer": {"text": str(i + 1 - score), "key": "k", "status": "parsed"}, "score": score, "score_meta": {},
                "error": "", "calls": calls, "seconds": 0.1,
            }  # fmt: skip
            records.write(json.dumps(row) + "\n")
            units.write(json.dumps({"id": row["id"], "score": score, "subset": row["subset"]}) + "\n")
    head = {
        "format": 1, "id": folder.name, "role": "baseline" if single else "method", "label": models[place] if single else label,
        "position": place, "config": config, "given": {}, "rule": {"level": 0.95, "gain": 0.0},
        "models": [{"name": m, "fingerprint": m * 8, "capabilities": ["generate"]} for m in models],
        "dataset": {"label": "d", "dev": 10, "test": questions, "test_fingerprint": "f", "chance": 0.25, "notes": {}},
        "environment": {"python": "3.11", "platform": "Linux", "cpus": 2, "versions": {}, "engines": []},
        "started": 1.7e9, "updated": 1.7e9, "status": "finished", "score": {}, "dev_mean": 0.5 if single else None, "failed": 0,
        "unparsed": 0.0, "truncated": 0.0, "binary": True, "tokens": {"respond": dict.fromkeys(models, cost)},
        "timings": {"total": 2.0}, "warnings": [], "error": "",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(head))


def timed(page, change, drawn):
    """Return the seconds from a change of the address, or a click, until a condition on the page holds and is painted.

    And how many of these the page's main thread computed.
    """
    script = """([change, drawn]) => new Promise((done) => {
      const holds = new Function("return " + drawn), begin = performance.now();
      const look = () => requestAnimationFrame(() => {
        if (holds()) setTimeout(() => done((performance.now() - begin) / 1000)); else look();
      });
      if (change.startsWith("#")) location.hash = change; else document.querySelector(change).click();
      look();
    })"""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = busy(session)
    seconds = page.evaluate(script, [change, drawn])
    used = busy(session) - before
    session.detach()
    return seconds, used


def busy(session):
    """Return the seconds of processor time that the page's main thread has used."""
    return next(m["value"] for m in session.send("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration")


def opened(question):
    """The condition that a question is there: its replies with the transcript of one, or that they had no room in the file."""
    named = f"document.querySelector('article h1')?.textContent === 'q{question}'"
    return f"{named} && (document.querySelector('.call') || document.querySelector('article .note'))"


def told(what, tries):
    """Print medians; ``tries`` are seconds, or pairs of seconds and those that were computed."""
    seconds, used = zip(*(t if isinstance(t, tuple) else (t, None) for t in tries), strict=True)
    computed = "" if used[0] is None else f"   {statistics.median(used):.2f} s busy"
    bound = f"   bound {BOUNDS[what]}" if what in BOUNDS else ""
    slowest = f"slowest {max(seconds):.2f} of {len(seconds)}"
    print(f"{what:<40} {statistics.median(seconds):6.2f} s   {slowest}{computed}{bound}", flush=True)


def measure(file, questions, tries):
    print(f"{'size':<40} {file.stat().st_size / 1e6:6.2f} MB   bound {BOUNDS['size']}")
    rng = random.Random(8)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        first, whole, linked = [], [], []
        for _ in range(tries):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            begin = time.perf_counter()
            page.goto(file.as_uri(), wait_until="commit")
            page.wait_for_selector(".forest tbody tr")
            first.append((time.perf_counter() - begin, busy(session)))
            page.wait_for_load_state("load")
            whole.append(time.perf_counter() - begin)
            page.close()
            page = browser.new_page()
            begin = time.perf_counter()
            page.goto(f"{file.as_uri()}#/question/q{rng.randrange(questions)}", wait_until="commit")
            page.wait_for_selector(".call, article .note")
            linked.append(time.perf_counter() - begin)
            page.close()
        told("first view", first)
        told("the whole file read", whole)
        told("a link to a question, from nothing", linked)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        views = {v: [] for v in VIEWS}
        for _ in range(tries):
            for view in VIEWS:
                here = f"document.querySelector('nav a[aria-current=page]')?.textContent === '{view}'"
                views[view].append(timed(page, f"#/{view}", here))
        for view, seconds in views.items():
            told(f"view: {view}", seconds)
        places = [rng.randrange(questions) for _ in range(40)]
        told("a question", [timed(page, f"#/question/q{place}", opened(place)) for place in places])
        timed(page, "#/question/q100", opened(100))
        told("the next question", [timed(page, "a[rel=next]", opened(100 + i)) for i in range(1, 21)])
        filters = {
            "filter: a subset": "in=subset+3",
            "filter: a text": "find=deflected",
            "filter: where systems disagree": "kind=split",
            "order: most disagreement first": "sort=split",
        }
        for name, query in filters.items():
            for view in ("questions", "verdict", "differences")[: 1 if "order" in name else 3]:
                seconds = []
                for i in range(tries):
                    page.evaluate("location.hash = '#/audit'")
                    page.wait_for_selector(".audit")
                    # a text of its own each time: nothing is remembered
                    address = f"#/{view}?{query}" + (f"&find={i}" if "find" not in query else f"+&of=m{i}&is=right")
                    here = f"document.querySelector('nav a[aria-current=page]')?.textContent === '{view}'"
                    seconds.append(timed(page, address, here))
                told(f"{name}, {view}", seconds)
        browser.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--systems", type=int, default=30)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--file", type=Path, help="a report that was made before")
    args = parser.parse_args()
    if not (sync_playwright and CHROMIUM):
        print("left out: it needs Chromium and playwright (pip install playwright)")
        return
    with tempfile.TemporaryDirectory() as folder:
        file = args.file
        if file is None:
            file = Path(folder) / "report.html"
            for place in range(args.systems):
                write_run(Path(folder) / "runs", place, args.questions)
            begin = time.perf_counter()
            assert cli._run(["report", str(Path(folder) / "runs"), "-o", str(file)]) == 0
            print(f"{'writing it':<40} {time.perf_counter() - begin:6.1f} s")
        measure(file, args.questions, args.tries)


if __name__ == "__main__":
    main()
