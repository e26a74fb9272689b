// Bundles src/ into the package's asset folder, with the licences of what is bundled and a hash of the sources.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const out = "../moco_command_report/asset";
const options = { bundle: true, minify: true, target: "es2022", legalComments: "none", metafile: true, charset: "utf8", preserveSymlinks: true };
const made = await build({ ...options, entryPoints: ["src/app.tsx"], outfile: `${out}/report.js`, jsx: "automatic", jsxImportSource: "preact", format: "iife" });
await build({ ...options, entryPoints: ["src/style.css"], outfile: `${out}/report.css` });

const bundled = [...new Set(Object.keys(made.metafile.inputs).map((f) => f.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]))];
const licences = bundled.filter(Boolean).sort().map((name) => {
  const folder = `node_modules/${name}`;
  const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((f) => /^licen[cs]e/i.test(f));
  return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
});
writeFileSync(`${out}/licences.txt`, licences.join(`\n${"-".repeat(80)}\n\n`));

const sources = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json", ...readdirSync("src").map((f) => `src/${f}`)];
const lines = [...sources.map((f) => [f, f]), ...["report.js", "report.css", "licences.txt"].map((f) => [`asset/${f}`, `${out}/${f}`])]
  .sort()
  .map(([name, file]) => `${createHash("sha256").update(readFileSync(file)).digest("hex")}  ${name}`);
writeFileSync(`${out}/sha256.txt`, `${lines.join("\n")}\n`);
