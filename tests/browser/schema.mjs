// Holds the API's answers against its own description.
import { readFileSync } from "node:fs";

const document = JSON.parse(readFileSync(new URL("../../functions/portal/openapi.json", import.meta.url), "utf8"));
const base = document.servers[0].url;

const typeOf = (v) => (v === null ? "null" : Array.isArray(v) ? "array" : Number.isInteger(v) ? "integer" : typeof v);

/** What is wrong with a value, as far as the document uses JSON Schema. */
function* faults(schema, value, at) {
  if (schema.$ref) {
    yield* faults(document.components.schemas[schema.$ref.split("/").at(-1)], value, at);
    return;
  }
  if (![schema.type].flat().includes(typeOf(value))) yield `${at} is ${typeOf(value)}, not ${schema.type}`;
  else if (schema.enum && !schema.enum.includes(value)) yield `${at} is ${JSON.stringify(value)}`;
  else if (schema.pattern && !new RegExp(schema.pattern).test(value)) yield `${at} is ${JSON.stringify(value)}`;
  else if (schema.format === "date-time" && value !== null && Number.isNaN(Date.parse(value))) yield `${at} is no time: ${value}`;
  else if (typeOf(value) === "array") {
    for (const [i, v] of value.entries()) yield* faults(schema.items, v, `${at}[${i}]`);
  } else if (typeOf(value) === "object") {
    for (const name of schema.required ?? []) if (!(name in value)) yield `${at}.${name} is missing`;
    for (const [name, v] of Object.entries(value)) {
      const property = schema.properties?.[name];
      if (property) yield* faults(property, v, `${at}.${name}`);
      else yield `${at}.${name} is not described`;
    }
  }
}

/** What is wrong with an answer to a request of this address; nothing for addresses outside the API. */
export function answerFaults(method, url, status, type, text) {
  const { pathname } = new URL(url);
  if (!pathname.startsWith(`${base}/`)) return [];
  const parts = pathname.slice(base.length).split("/");
  const path = Object.keys(document.paths).find((p) => {
    const names = p.split("/");
    return names.length === parts.length && names.every((n, i) => n.startsWith("{") || n === parts[i]);
  });
  if (!path) return [`${pathname} is not described`];
  const kinds = document.paths[path][method.toLowerCase()]?.responses[status]?.content;
  const content = kinds?.[type] ?? kinds?.[type.split(";")[0]];
  if (!content) return [`${path} answers ${status} as ${type}, which is not described`];
  if (!type.includes("json")) return [];
  return [...faults(content.schema, JSON.parse(text), `${path} ${status}`)];
}
