// Writes one JSON line a claim, for the Go test that started this.
export default async function* reporter(events) {
  for await (const { type, data } of events) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    if (data.details?.type === "suite") continue;
    const error = data.details?.error;
    const cause = error?.cause ?? error;
    yield `${JSON.stringify({ claim: data.name, ok: type === "test:pass", detail: cause ? String(cause.stack ?? cause) : "" })}\n`;
  }
}
