import { webLightTheme } from "@fluentui/react-components";
import DOMPurify from "dompurify";
import { createContext, use, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";

/*
 * How message HTML is shown.
 *
 * The server has taken the HTML apart and written again what it allows. Here a second parser, DOMPurify, goes over
 * it, and the result stands in a sandboxed frame without scripts and without the portal's origin. Such a frame
 * cannot tell its height, and no part of the message may be laid out in the page to measure it, so the height is
 * computed from the text; if the guess is short the frame scrolls.
 *
 * A frame a message is dear in a long thread. Most messages are paragraphs only: for those the plain text says the
 * same, and it is set as text, never as markup. Frames are made for messages whose markup carries meaning (quotes,
 * lists, tables, links, emphasis, code), and the browser loads a frame when it comes near the view.
 */

/*
 * The policy of the pages asks for trusted types: markup reaches the browser as a type that only named makers make,
 * DOMPurify and the one here, and a string that reaches it by any other way is refused.
 */
interface MarkupMaker {
  createHTML(markup: string): string; // a TrustedHTML, which stands where a string stands
}
const { trustedTypes } = window as { trustedTypes?: { createPolicy(name: string, rules: MarkupMaker): MarkupMaker } };
const maker: MarkupMaker = trustedTypes?.createPolicy("steno-message", { createHTML: (markup) => markup }) ?? { createHTML: (markup) => markup };

/** The nonce of this response, which style elements must carry. */
export const NonceContext = createContext("");

const meaningful = /<(?!\/?(?:p|div|br|span)>)/i;

/** Whether the markup says more than the plain text. The server writes these elements without attributes. */
export const carriesMeaning = (html: string) => meaningful.test(html);

const tags = [
  "p", "br", "div", "span", "b", "strong", "i", "em", "u", "s", "sub", "sup", "blockquote", "pre", "code", "ul", "ol",
  "li", "table", "thead", "tbody", "tr", "td", "th", "h1", "h2", "h3", "hr", "a",
];

// Fluent's own, so that a message looks the same in and out of a frame.
const font = `14px ${webLightTheme.fontFamilyBase}`;

const style = `
:root { color-scheme: light dark; font: ${font}; line-height: 20px; color: light-dark(#242424, #ffffff); }
body { margin: 0; overflow-wrap: anywhere; }
p, div, ul, ol, table, h1, h2, h3, blockquote, pre { margin: 0 0 4px; }
h1, h2, h3 { font-size: 16px; line-height: 24px; }
ul, ol { padding-left: 24px; }
blockquote { padding: 4px 12px; border-left: 3px solid light-dark(#8a8a8a, #adadad); background: light-dark(#f0f0f0, #333333); }
pre, code { font-family: Consolas, ui-monospace, monospace; font-size: 13px; }
pre { white-space: pre-wrap; }
table { border-collapse: collapse; width: 100%; }
td, th { border: 1px solid light-dark(#8a8a8a, #adadad); padding: 3px 8px; text-align: left; vertical-align: top; }
.target { color: light-dark(#616161, #d6d6d6); }
`;

/** Message HTML as an inert document: links are written out, since nothing in the frame leads anywhere. */
function purify(html: string): HTMLElement {
  const body = DOMPurify.sanitize(html, {
    ALLOWED_TAGS: tags,
    ALLOWED_ATTR: ["href"],
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM: true,
  }) as HTMLElement;
  for (const link of body.querySelectorAll("a")) {
    const target = link.getAttribute("href");
    const written = body.ownerDocument.createElement("u");
    written.append(...link.childNodes);
    link.replaceWith(written);
    if (target && target !== written.textContent?.trim()) {
      const note = body.ownerDocument.createElement("span");
      note.className = "target";
      note.textContent = ` <${target}>`;
      written.after(note);
    }
  }
  return body;
}

const lineHeight = 20;
/** A message higher than this scrolls in its frame. */
const maxHeight = 2400;
const blocks = new Set(["P", "DIV", "UL", "OL", "LI", "TABLE", "THEAD", "TBODY", "TR", "H1", "H2", "H3", "BLOCKQUOTE", "PRE", "HR"]);
const ruler = document.createElement("canvas").getContext("2d");

/** How many lines a text fills, breaking where a browser may break it. */
function lines(text: string, available: number): number {
  const width = Math.max(available, 40);
  if (!ruler) return Math.ceil((text.length * 8) / width);
  ruler.font = font;
  let count = 1;
  let x = 0;
  for (const token of text.split(/(?<=[ \-/?])/)) {
    const ink = ruler.measureText(token.trimEnd()).width * 1.03; // some of it may be bold
    if (x > 0 && x + ink > width) {
      count++;
      x = 0;
    }
    count += Math.floor(ink / width); // a word longer than a line is cut
    x += ink > width ? ink % width : ruler.measureText(token).width;
    if (count * lineHeight > maxHeight) break;
  }
  return count;
}

/** About how high a node stands in a column of this width. */
function heightOf(node: Node, width: number): number {
  const tag = node.nodeName;
  if (tag === "TR") {
    const cells = [...node.childNodes].filter((c) => c.nodeType === Node.ELEMENT_NODE);
    return Math.max(lineHeight, ...cells.map((c) => heightOf(c, width / cells.length - 17))) + 7;
  }
  if (tag === "HR") return 18;
  const keepsBreaks = tag === "PRE";
  let inside = width;
  let height = 0;
  if (tag === "UL" || tag === "OL") inside -= 24;
  if (tag === "BLOCKQUOTE") {
    inside -= 27;
    height += 8;
  }
  let run = "";
  const flush = () => {
    const text = keepsBreaks ? run : run.replace(/[ \t\r\n]+/g, " ").trim();
    if (text) height += text.split(keepsBreaks ? "\n" : "\v").reduce((n, t) => n + lines(t, inside), 0) * lineHeight;
    run = "";
  };
  const walk = (parent: Node) => {
    for (const child of parent.childNodes) {
      if (child.nodeType === Node.TEXT_NODE) run += child.nodeValue ?? "";
      else if (child.nodeName === "BR") run += keepsBreaks ? "\n" : "\v";
      else if (blocks.has(child.nodeName)) {
        flush();
        height += heightOf(child, inside);
      } else walk(child);
    }
  };
  walk(node);
  flush();
  if (/^H[123]$/.test(tag)) height += 4;
  return height + (blocks.has(tag) && tag !== "LI" ? 4 : 0);
}

/** A message in a frame of its own, which runs nothing and reaches nothing. */
export function MessageFrame({ html, title }: { html: string; title: string }) {
  const nonce = use(NonceContext);
  const frame = useRef<HTMLIFrameElement>(null);
  const [width, setWidth] = useState(560);
  useEffect(() => {
    const element = frame.current;
    if (!element) return;
    const observer = new ResizeObserver(([entry]) => entry && setWidth(Math.round(entry.contentRect.width)));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const body = useMemo(() => purify(html), [html]);
  const source = useMemo(
    () => `<!doctype html><html lang="en"><head><meta charset="utf-8"><style nonce="${nonce}">${style}</style></head><body>${body.innerHTML}</body></html>`,
    [body, nonce],
  );
  // Not as an attribute: React would turn the trusted type into a string.
  useLayoutEffect(() => {
    if (frame.current) frame.current.srcdoc = maker.createHTML(source);
  }, [source]);
  const height = useMemo(() => Math.min(maxHeight, Math.max(lineHeight, heightOf(body, width)) + 4), [body, width]);
  return <iframe ref={frame} className="message-frame" title={title} sandbox="" loading="lazy" referrerPolicy="no-referrer" style={{ height }} />;
}
