import { createDOMRenderer, RendererProvider } from "@fluentui/react-components";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import "./portal.css";

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no root");
const nonce = document.querySelector<HTMLMetaElement>("meta[name=style-nonce]")?.content ?? "";
const renderer = createDOMRenderer(document, { styleElementAttributes: { nonce } });
createRoot(root).render(
  <RendererProvider renderer={renderer} targetDocument={document}>
    <App nonce={nonce} />
  </RendererProvider>,
);
