// Prints what the first page load costs, compressed, and fails when it is too much.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const limit = 330 * 1024;
const index = readFileSync(new URL("dist/index.html", import.meta.url), "utf8");
const names = [...index.matchAll(/(?:src|href)="\/steno\/(assets\/[^"]+)"/g)].map((m) => m[1]);
let total = gzipSync(index).length;
for (const name of names) {
  const size = gzipSync(readFileSync(new URL(`dist/${name}`, import.meta.url)), { level: 9 }).length;
  total += size;
  console.log(`${(size / 1024).toFixed(1).padStart(7)} KB gzip  ${name}`);
}
console.log(`${(total / 1024).toFixed(1).padStart(7)} KB gzip in all, of ${limit / 1024}`);
if (names.length === 0 || total > limit) {
  console.error(names.length === 0 ? "no assets found in index.html" : "the pages are over their budget");
  process.exit(1);
}
