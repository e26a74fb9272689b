// The report: the address says which view is shown, and of what.
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { AuditView, ProvenanceView } from "./audit";
import { CostView } from "./cost";
import { readSummary } from "./data";
import { DifferencesView } from "./differences";
import { plural } from "./format";
import { Choose } from "./parts";
import { neighbours, QuestionView } from "./question";
import { QuestionsView } from "./questions";
import { scopeOf } from "./scope";
import { href, type Route, useRoute, type View, VIEWS } from "./route";
import type { Section, Summary } from "./types";
import { VerdictView } from "./verdict";

const KEYS: [string, string][] = [
  ["1 to 6", "the views"], ["/", "find a question"], ["↑ ↓ page home end", "move in a list"], ["enter", "open a question"],
  ["j, k", "next and previous question"], ["esc", "back to the list"], ["t", "light or dark"], ["?", "this help"],
];

function App({ summary }: { summary: Summary }) {
  const route = useRoute(), [help, setHelp] = useState(false);
  const number = Math.min(summary.sections.length - 1, Math.max(0, Number(route.given.s) || 0)), section = summary.sections[number];
  const main = useRef<HTMLElement>(null), here = useRef(route);
  here.current = route;
  useEffect(() => { document.title = `${title(route)} · ${section.dataset} · MoCo report`; }, [route, section]);
  useEffect(() => { scrollTo(0, 0); }, [route.view]);
  useEffect(() => {
    const key = (e: KeyboardEvent) => {
      const target = e.target as HTMLElement;
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      if (/^(input|select|textarea)$/i.test(target.tagName)) { if (e.key === "Escape") target.blur(); return; }
      const at = here.current;
      if (e.key === "?") setHelp((h) => !h);
      else if (e.key === "t") turn();
      else if (e.key === "Escape") { if (document.querySelector("dialog[open]")) setHelp(false); else if (at.view === "question") location.hash = href(at.given.cell ? "differences" : "questions", at.given); }
      else if (e.key === "/") { e.preventDefault(); if (at.view !== "questions") location.hash = href("questions", at.given); setTimeout(() => document.getElementById("find")?.focus(), 60); }
      else if (/^[1-6]$/.test(e.key)) location.hash = href(VIEWS[Number(e.key) - 1], scopeOf(at.given));
      else if (at.view === "question" && (e.key === "j" || e.key === "k")) {
        const [before, , after] = neighbours(summary.sections[Number(at.given.s) || 0] ?? summary.sections[0], at), to = e.key === "j" ? after : before;
        if (to >= 0) location.hash = href("question", at.given, section.questions.ids[to]);
      }
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, [section]);
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); main.current?.focus(); }}>to the content</a>
      <header class="top">
        <div class="title">
          <p class="brand">MoCo <span>report</span></p>
          {summary.sections.length > 1
            ? <Choose id="section" label="" value={String(number)} options={summary.sections.map((s, i): [string, string] => [String(i), named(s, i, summary)])} onChange={(v) => { location.hash = href(route.view === "question" ? "verdict" : route.view, { s: v }); }} />
            : <h1 class="dataset"><bdi>{section.dataset}</bdi></h1>}
          <p class="about quiet">{about(section)}</p>
          <span class="tools">
            <button class="plain" onClick={turn} title="light or dark (t)" aria-label="light or dark">◐</button>
            <button class="plain" onClick={() => setHelp(true)} title="keys (?)" aria-label="keys">?</button>
          </span>
        </div>
        <nav aria-label="views">
          {VIEWS.map((v) => <a href={href(v, scopeOf(route.given))} aria-current={(route.view === "question" ? "questions" : route.view) === v ? "page" : undefined}>{v}</a>)}
        </nav>
      </header>
      <main ref={main} id="main" tabIndex={-1}><Shown section={section} number={number} route={route} summary={summary} /></main>
      <Help open={help} close={() => setHelp(false)} />
    </>
  );
}

const title = (route: Route) => (route.view === "question" ? route.question : route.view);

function about(s: Section): string {
  const by = (role: string) => s.rows.filter((r) => r.role === role).length;
  const parts = [plural(by("method"), "method"), plural(by("baseline"), "single model"), ...(by("control") ? [plural(by("control"), "control")] : [])];
  return `${parts.join(", ")} · ${plural(s.questions.ids.length, "question")} · ${s.metric.replaceAll("_", " ")}${s.seeds.length > 1 ? ` · ${s.seeds.length} seeds` : ""}`;
}

function named(s: Section, i: number, summary: Summary): string {
  const alike = summary.sections.filter((o) => o.dataset === s.dataset);
  return alike.length > 1 ? `${s.dataset} (${alike.indexOf(s) + 1}: ${plural(s.questions.ids.length, "question")}, pool of ${s.pool.length})` : s.dataset;
}

function Shown({ section, number, route, summary }: { section: Section; number: number; route: Route; summary: Summary }) {
  const views: Record<View, () => any> = {
    verdict: () => <VerdictView section={section} given={route.given} summary={summary} />,
    differences: () => <DifferencesView section={section} route={route} />,
    questions: () => <QuestionsView section={section} route={route} />,
    cost: () => <CostView section={section} route={route} />,
    audit: () => <AuditView section={section} route={route} summary={summary} />,
    provenance: () => <ProvenanceView section={section} summary={summary} />,
    question: () => <QuestionView section={section} number={number} route={route} />,
  };
  return views[route.view]();
}

function Help({ open, close }: { open: boolean; close: () => void }) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => { if (open && !box.current!.open) box.current!.showModal(); else if (!open) box.current!.close(); }, [open]);
  return (
    <dialog ref={box} onClose={close} aria-label="keys">
      <h2>Keys</h2>
      <dl class="facts">{KEYS.map(([k, v]) => <><dt><kbd>{k}</kbd></dt><dd>{v}</dd></>)}</dl>
      <button onClick={close}>close</button>
    </dialog>
  );
}

function turn(): void {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = (root.dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
}

readSummary().then(
  (summary) => { const app = document.getElementById("app")!; app.textContent = ""; render(<App summary={summary} />, app); },
  (error) => { document.getElementById("app")!.textContent = `This report cannot be opened: ${error.message}`; },
);
