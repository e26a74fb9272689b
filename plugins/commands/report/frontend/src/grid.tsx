// What the whole page says beyond its sections: emergence beside its controls, means over datasets, the reference study.
import { percent, plural, range, score, signed } from "./format";
import { breakable, Name } from "./parts";
import type { Section, Summary } from "./types";

/** Emergence of every method, beside that of its controls and beside chance. */
export function EmergenceTable({ section }: { section: Section }) {
  const methods = [...section.rows].reverse().filter((s) => s.role === "method" && s.emergence);
  if (!methods.length) return null;
  if (methods.every((s) => !s.emergence!.open)) {
    return <><h2>Emergence</h2><p class="note">Every question is right with some single model: nothing can emerge here.</p></>;
  }
  const kinds = ["equal budget", "self"].filter((c) => methods.some((s) => s.control_emergence[c]));
  const missing = !kinds.includes("equal budget");
  return (
    <>
      <h2>Emergence</h2>
      <div class="scroll">
        <table class="emergence">
          <caption>Of the questions that no single model got right, the share that is right</caption>
          <thead><tr>
            <th scope="col">Method</th><th scope="col" class="num">Share</th><th scope="col" class="num">Questions</th>
            {kinds.map((c) => <th scope="col" class="num">Its {c} control</th>)}
            {section.chance != null && <th scope="col" class="num">Chance</th>}
          </tr></thead>
          <tbody>{methods.map((s) => (
            <tr>
              <th scope="row"><Name of={s} plain /></th>
              <td class="num strong">{percent(s.emergence!.share, 1)}</td>
              <td class="num quiet">{number(s.emergence!.solved)} of {number(s.emergence!.open)}{s.emergence!.open < 20 ? " (few)" : ""}</td>
              {kinds.map((c) => <td class="num">{s.control_emergence[c] ? percent(s.control_emergence[c].share, 1) : ""}</td>)}
              {section.chance != null && <td class="num">{percent(section.chance, 1)}</td>}
            </tr>
          ))}</tbody>
        </table>
      </div>
      {missing && <p class="note">No equal-budget control was run: more tries of one model might solve as many.</p>}
    </>
  );
}

const number = (v: number) => (Number.isInteger(v) ? String(v) : v.toFixed(1));

export function GridTables({ summary }: { summary: Summary }) {
  const { datasets, study } = summary.grid;
  return (
    <>
      {datasets.length > 0 && (
        <>
          <h2>Over all datasets</h2>
          <div class="scroll">
            <table class="datasets">
              <caption>Datasets count alike, whatever their size; 95 % intervals</caption>
              <thead><tr><th scope="col">System</th><th scope="col" class="num">Datasets</th><th scope="col" class="num">Mean score</th><th scope="col" class="num">vs best</th></tr></thead>
              <tbody>{datasets.map((d) => (
                <tr class={d.role}>
                  <th scope="row"><bdi>{breakable(d.system)}</bdi></th>
                  <td class="num quiet">{d.datasets}{d.few ? " (few questions)" : ""}</td>
                  <td class="num">{score(d.score)}<small>{range(d.low, d.high)}</small></td>
                  <td class="num">{d.difference && <>{signed(d.difference[0])}<small>{range(d.difference[1], d.difference[2], signed)}</small></>}</td>
                </tr>
              ))}</tbody>
            </table>
          </div>
        </>
      )}
      {study && (
        <>
          <h2>Beside the reference study</h2>
          <div class="scroll">
            <table class="study">
              <caption>Its aggregates (arXiv 2601.21257), recomputed for the {plural(study.cells, "cell")} (dataset, pool, method) of this page</caption>
              <thead><tr><th scope="col">Quantity</th><th scope="col" class="num">Here</th><th scope="col" class="num">Published</th><th scope="col">What</th></tr></thead>
              <tbody>{study.rows.map(([quantity, here, published, what]) => (
                <tr><th scope="row">{quantity}</th><td class="num strong">{percent(here, 1)}</td><td class="num">{percent(published, 1)}</td><td class="quiet">{what}</td></tr>
              ))}</tbody>
            </table>
          </div>
        </>
      )}
    </>
  );
}
