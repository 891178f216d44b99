// Writes src/api-types.ts from ../openapi.json. With --check it writes nothing and
// fails when the file is not what the document says.
import { readFileSync, writeFileSync } from "node:fs";

const at = (path) => new URL(path, import.meta.url);
const document = JSON.parse(readFileSync(at("../openapi.json"), "utf8"));
const output = at("src/api-types.ts");

const refName = (ref) => ref.slice(ref.lastIndexOf("/") + 1);
const property = (name) => (/^[A-Za-z_]\w*$/.test(name) ? name : JSON.stringify(name));

/** The TypeScript type of a JSON schema, as far as the document uses JSON Schema. */
function typeOf(schema, indent) {
  if (schema.$ref) return refName(schema.$ref);
  if (schema.enum) return schema.enum.map((v) => JSON.stringify(v)).join(" | ");
  const types = [schema.type].flat();
  return types.map((type) => plainType(type, schema, indent)).join(" | ");
}

function plainType(type, schema, indent) {
  switch (type) {
    case "string":
      return schema.format === "binary" ? "Blob" : "string";
    case "boolean":
    case "null":
      return type;
    case "integer":
    case "number":
      return "number";
    case "array": {
      const item = typeOf(schema.items, indent);
      return item.includes(" | ") ? `(${item})[]` : `${item}[]`;
    }
    case "object":
      return objectType(schema, indent);
    default:
      throw new Error(`schema of type ${type} is not provided for`);
  }
}

function objectType(schema, indent) {
  const inner = indent + "  ";
  const required = new Set(schema.required);
  const lines = Object.entries(schema.properties ?? {}).map(
    ([name, s]) => `${inner}${property(name)}${required.has(name) ? "" : "?"}: ${typeOf(s, inner)};`,
  );
  return lines.length === 0 ? "Record<never, never>" : `{\n${lines.join("\n")}\n${indent}}`;
}

function parameters(operation, where) {
  const own = (operation.parameters ?? []).filter((p) => p.in === where);
  return objectType(
    { properties: Object.fromEntries(own.map((p) => [p.name, p.schema])), required: own.filter((p) => p.required).map((p) => p.name) },
    "    ",
  );
}

function answer(operation) {
  const [content] = Object.values(operation.responses["200"].content);
  return typeOf(content.schema, "    ");
}

function entry(path, operation, more) {
  return [
    `  /** ${operation.summary} */`,
    `  ${JSON.stringify(path)}: {`,
    `    path: ${parameters(operation, "path")};`,
    `    query: ${parameters(operation, "query")};`,
    ...more,
    `    answer: ${answer(operation)};`,
    "  };",
  ];
}

function generate() {
  const out = ["// Generated from openapi.json by generate.mjs; do not edit.\n"];
  for (const [name, schema] of Object.entries(document.components.schemas)) {
    const type = typeOf(schema, "");
    out.push(type.startsWith("{") ? `export interface ${name} ${type}\n` : `export type ${name} = ${type};\n`);
  }
  out.push("/** Every path of the API that can be read, with what a GET of it takes and answers. */\nexport interface Paths {");
  for (const [path, { get }] of Object.entries(document.paths)) {
    if (get) out.push(...entry(path, get, []));
  }
  out.push("}\n");
  out.push("/** Every path of the API that changes something, with what a POST to it takes and answers. */\nexport interface Changes {");
  for (const [path, { post }] of Object.entries(document.paths)) {
    if (post) out.push(...entry(path, post, [`    body: ${typeOf(post.requestBody.content["application/json"].schema, "    ")};`]));
  }
  out.push("}\n");
  return out.join("\n");
}

const wanted = generate();
if (!process.argv.includes("--check")) {
  writeFileSync(output, wanted);
} else if (readFileSync(output, "utf8") !== wanted) {
  console.error("src/api-types.ts is not what openapi.json says: run npm run generate");
  process.exit(1);
}
