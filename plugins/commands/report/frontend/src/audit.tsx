// What can be wrong with each system's numbers; and where they come from.
import { useState } from "preact/hooks";
import { amount, count, date, percent, quantity, score } from "./format";
import { Facts, Name, Said } from "./parts";
import { href, type Route } from "./route";
import type { Run, Section, Summary, System } from "./types";
import { pick } from "./verdict";

interface Audited { recorded: number; expected: number; failed: number; unread: number; cut: number; unpriced: string; redirected: string[]; warnings: string[] }

const REDIRECTED = /was asked and .* answers/;

export function audited(section: Section, i: number): Audited {
  const s = section.rows[i], marks = section.questions.marks[i], runs = section.runs.filter((r) => r.system === i);
  const counted = (c: string) => [...marks].filter((m) => m === c).length;
  const warnings = [...new Set(runs.flatMap((r) => r.warnings))];
  const money = s.cost_per_question.money;
  return {
    recorded: marks.length - counted("-"), expected: Math.max(...runs.map((r) => r.questions)), failed: counted("f"), unread: counted("u"), cut: counted("c"),
    unpriced: money.value == null ? "all" : money.at_least ? "some" : "", redirected: warnings.filter((w) => REDIRECTED.test(w)), warnings: warnings.filter((w) => !REDIRECTED.test(w)),
  };
}

/** The warnings of a system that not all systems have. */
export function ownWarnings(section: Section, place: number): string[] {
  const found = section.rows.map((_, i) => new Set(section.runs.filter((r) => r.system === i).flatMap((r) => r.warnings)));
  return [...found[place]].filter((w) => found.length === 1 || !found.every((f) => f.has(w)));
}

export function AuditView({ section, route, summary }: { section: Section; route: Route; summary: Summary }) {
  const order = section.rows.map((_, i) => i).reverse(), found = section.rows.map((_, i) => audited(section, i));
  const shared = found.length > 1 ? found[0].warnings.filter((w) => found.every((f) => f.warnings.includes(w))) : [];
  const link = (s: System, is: string, n: number) => n ? <a class="bad" href={href("questions", { ...pick(route.given), of: s.name, is })}>{count(n)}</a> : <span class="quiet">0</span>;
  return (
    <>
      {[...summary.problems, ...summary.notes].length > 0 && (
        <ul class="problems">{summary.problems.map((t) => <li><b>not read</b> <bdi>{t}</bdi></li>)}{summary.notes.map((t) => <li><bdi>{t}</bdi></li>)}</ul>
      )}
      <div class="scroll">
        <table class="audit">
          <thead><tr>
            <th scope="col">System</th><th scope="col">Ended</th><th scope="col" class="num">Recorded</th><th scope="col" class="num" title="no answer could be read from the reply">No answer</th>
            <th scope="col" class="num" title="the token budget ended the reply">Cut</th><th scope="col" class="num">Failed</th><th scope="col" title="calls whose money is unknown">Unpriced</th>
            <th scope="col" title="another model answered than was asked">Redirected</th><th scope="col" class="num" title="calls that the cache answered">From cache</th><th scope="col" class="num">Warnings</th>
          </tr></thead>
          <tbody>
            {order.map((i) => {
              const s = section.rows[i], f = found[i], own = f.warnings.filter((w) => !shared.includes(w)).length;
              return (
                <tr class={s.role}>
                  <th scope="row"><Name of={s} plain /></th>
                  <td class={s.status === "finished" ? "quiet" : "bad"}>{s.status}</td>
                  <td class="num">{f.recorded < f.expected ? <a class="bad" href={href("questions", { ...pick(route.given), of: s.name, is: "absent" })}>{count(f.recorded)} of {count(f.expected)}</a> : <span class="quiet">{count(f.recorded)}</span>}</td>
                  <td class="num">{link(s, "unread", f.unread)}</td>
                  <td class="num">{link(s, "cut", f.cut)}</td>
                  <td class="num">{link(s, "failed", f.failed)}</td>
                  <td class="quiet">{f.unpriced}</td>
                  <td class={f.redirected.length ? "bad" : "quiet"}>{f.redirected.length ? "yes" : "no"}</td>
                  <td class="num quiet">{s.calls ? percent(s.cached_calls / s.calls) : "–"}</td>
                  <td class="num">{own ? <span class="bad">{own}</span> : <span class="quiet">{f.warnings.length ? "shared" : 0}</span>}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      <p class="note">Counts are of questions and lead to them. A question that no answer was read from counts as wrong, not as missing.</p>
      {shared.length > 0 && <><h2>Warnings of all systems</h2><ul class="warnings">{shared.map((w) => <li><Said text={w} /></li>)}</ul></>}
      {order.map((i) => {
        const s = section.rows[i], told = [...found[i].redirected, ...found[i].warnings.filter((w) => !shared.includes(w)), ...(s.error ? [s.error] : [])];
        return told.length > 0 && <><h3><Name of={s} /></h3><ul class="warnings">{told.map((w) => <li><Said text={w} /></li>)}</ul></>;
      })}
      {section.rows.some((s) => s.left_out) && <p class="note">Left out of {section.dataset}: {section.rows.find((s) => s.left_out)!.left_out}.</p>}
    </>
  );
}

export function ProvenanceView({ section, summary }: { section: Section; summary: Summary }) {
  const runs = [...section.runs].sort((x, y) => y.system - x.system || x.seed - y.seed);
  const first = section.runs[0].facts, data = first.dataset ?? {}, versions = first.environment?.versions ?? {};
  return (
    <>
      <div class="two even">
        <section>
          <h3>Data</h3>
          <Facts of={[
            ["dataset", section.dataset], ["test questions", count(data.test)], ["test fingerprint", <code>{data.test_fingerprint}</code>],
            ["dev questions", count(data.dev)], ["dev fingerprint", <code>{data.dev_fingerprint}</code>], ["metric", section.metric],
            ["seeds", section.seeds.join(", ")], ["sampling", Object.entries(first.config?.sampling ?? {}).map(([k, v]) => `${k.replaceAll("_", " ")} ${JSON.stringify(v)}`).join(", ")],
            ["verdict rule", `level ${section.rule.level}, gain ${section.rule.gain}`], ["report written", summary.written.replace("T", " ").replace("+00:00", " UTC")],
          ]} />
        </section>
        <section>
          <h3>Machine and versions</h3>
          <Facts of={[
            ["python", first.environment?.python], ["platform", first.environment?.platform], ["processors", first.environment?.cpus],
            ...(first.environment?.engines ?? []).map((e: any): [string, any] => ["engine", <Said text={JSON.stringify(e)} class="data" />]),
            ["versions", <details><summary>{Object.keys(versions).length} packages of the first run</summary><Said text={Object.entries(versions).map(([k, v]) => `${k} ${v}`).join("\n")} class="data" /></details>],
          ]} />
        </section>
      </div>
      <h2>Models</h2>
      <div class="scroll"><table class="small"><thead><tr><th scope="col">Model</th><th scope="col">Fingerprint</th><th scope="col">Can</th></tr></thead>
        <tbody>{(first.models ?? []).map((m: any) => <tr><th scope="row"><bdi>{m.name}</bdi></th><td><code>{String(m.fingerprint).slice(0, 16)}</code></td><td class="quiet">{(m.capabilities ?? []).join(", ")}</td></tr>)}</tbody></table></div>
      <h2>Runs</h2>
      {runs.map((r) => <RunFacts run={r} system={section.rows[r.system]} />)}
    </>
  );
}

function RunFacts({ run, system }: { run: Run; system: System }) {
  const [open, setOpen] = useState(false);
  const { given, config, timings, environment } = run.facts;
  return (
    <details class="run" open={open} onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary><Name of={system} plain /> <span class="quiet">seed {run.seed}, {run.status}, {date(run.facts.started)}</span></summary>
      {open && (
        <>
          <Facts of={[
            ["folder", <code>{run.folder}</code>], ["id", <code>{run.facts.id}</code>], ["begun", date(run.facts.started)], ["last written", date(run.facts.updated)],
            ["took", timings && Object.entries(timings).map(([k, v]) => `${k} ${quantity(v as number)} s`).join(", ")],
            ["score", score(system.seed_means[String(run.seed)])], ["cost", amount(system.cost_per_question.tokens) + " tokens per question"],
            ["platform", environment?.platform], ["error", run.error],
          ]} />
          <div class="two">
            <section><h4>Configuration given</h4><Said text={yaml(given)} class="data" /></section>
            <section><h4>Configuration used</h4><Said text={yaml(config)} class="data" /></section>
          </div>
        </>
      )}
    </details>
  );
}

/** A mapping as people read it; the form is YAML's, for the simple values that configurations have. */
function yaml(value: any, indent = ""): string {
  if (value == null || typeof value !== "object") return JSON.stringify(value);
  const entries = Object.entries(value);
  if (!entries.length) return Array.isArray(value) ? "[]" : "{}";
  const flat = JSON.stringify(value);
  if (Array.isArray(value) && flat.length < 70) return flat;
  return entries.map(([k, v]) => {
    const nested = v && typeof v === "object" && Object.keys(v).length && !(Array.isArray(v) && JSON.stringify(v).length < 70);
    const head = Array.isArray(value) ? `${indent}-` : `${indent}${k}:`;
    return nested ? `${head}\n${yaml(v, `${indent}  `)}` : `${head} ${yaml(v, indent)}`;
  }).join("\n");
}
