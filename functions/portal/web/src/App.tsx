import { Button, FluentProvider, Menu, MenuItem, MenuList, MenuPopover, MenuTrigger, webDarkTheme, webLightTheme } from "@fluentui/react-components";
import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { Link, Route, Router, Switch, useLocation } from "wouter";
import { Api } from "./api";
import { ApprovalsPage } from "./Approvals";
import { base } from "./base";
import { ConversationPage } from "./Conversation";
import { ConversationsPage } from "./Conversations";
import { CoverageDayPage, CoveragePage } from "./Coverage";
import { ExportsPage } from "./Exports";
import { HoldsPage } from "./Holds";
import { LookbacksPage } from "./Lookbacks";
import { type Portal, PortalContext, useLoading, usePortal } from "./loading";
import { NonceContext } from "./MessageFrame";
import { PeoplePage } from "./People";
import { SignIn } from "./signin";
import { Busy, Failure, Notice } from "./states";
import { TrailPage } from "./Trail";
import { roleNames } from "./words";

const dark = window.matchMedia("(prefers-color-scheme: dark)");

function useDark(): boolean {
  return useSyncExternalStore(
    (changed) => {
      dark.addEventListener("change", changed);
      return () => dark.removeEventListener("change", changed);
    },
    () => dark.matches,
  );
}

export function App({ nonce }: { nonce: string }) {
  return (
    <NonceContext value={nonce}>
      {/* A class here would go to menus and lists too, which Fluent lays over the page. */}
      <FluentProvider theme={useDark() ? webDarkTheme : webLightTheme}>
        <div className="app">
          <Router base={base.replace(/\/$/, "")}>
            <Door />
          </Router>
        </div>
      </FluentProvider>
    </NonceContext>
  );
}

/** Finds out who is here, and asks for a sign-in when nobody is. */
function Door() {
  const [signIn, setSignIn] = useState<SignIn | null>(null);
  const [broken, setBroken] = useState(false);
  const started = useRef(false);
  useEffect(() => {
    if (started.current) return; // a sign-in comes back once
    started.current = true;
    SignIn.start().then(setSignIn, () => setBroken(true));
  }, []);
  if (broken) {
    return (
      <Closed>
        <Notice title="Sign-in did not work" actions={<Button appearance="primary" onClick={() => location.assign(base)}>Start again</Button>}>
          <p>The sign-in was called off, or the portal did not answer.</p>
        </Notice>
      </Closed>
    );
  }
  if (!signIn) return <Closed><Busy label="Opening Steno" /></Closed>;
  if (!signIn.account()) {
    return (
      <Closed>
        <Notice title="Sign in to Steno" actions={<Button appearance="primary" onClick={() => void signIn.signIn()}>Sign in</Button>}>
          <p>For supervisors, compliance officers and administrators. What you open here is recorded in the custody log.</p>
        </Notice>
      </Closed>
    );
  }
  return <Inside signIn={signIn} />;
}

/** The frame around what stands there before anybody is known. */
function Closed({ children }: { children: React.ReactNode }) {
  return (
    <>
      <header className="top"><span className="brand">Steno</span></header>
      <main className="closed">
        <h1 className="hidden">Steno</h1>
        {children}
      </main>
    </>
  );
}

function Inside({ signIn }: { signIn: SignIn }) {
  const api = useMemo(() => new Api(signIn), [signIn]);
  const { data, error, again } = useLoading(
    useCallback(
      async (signal: AbortSignal) => {
        const [session, people] = await Promise.all([api.get("/session", {}, signal), api.get("/people", {}, signal)]);
        return { session, people: people.people };
      },
      [api],
    ),
  );
  const ask = useCallback(() => void signIn.signIn(), [signIn]);
  const portal = useMemo<Portal | null>(() => data && { api, signIn: ask, ...data }, [api, ask, data]);
  if (error) return <Closed><Failure error={error} again={again} signIn={ask} /></Closed>;
  if (!portal) return <Closed><Busy label="Reading who you are" /></Closed>;
  return (
    <PortalContext value={portal}>
      <a className="skip" href="#main">Skip to content</a>
      <Top account={signIn.account()?.name ?? ""} signOut={() => void signIn.signOut()} />
      <div className="columns">
        <Navigation />
        <Pages />
      </div>
    </PortalContext>
  );
}

function Top({ account, signOut }: { account: string; signOut: () => void }) {
  const { session } = usePortal();
  const name = session.name || account || session.address || "You";
  return (
    <header className="top">
      <Link href="/" className="brand">Steno</Link>
      <span className="product">Communications archive</span>
      <Menu>
        <MenuTrigger disableButtonEnhancement>
          <Button appearance="transparent" className="me">{name}</Button>
        </MenuTrigger>
        <MenuPopover>
          <div className="who">
            <strong>{name}</strong>
            <span>{session.address}</span>
            <span>{session.roles.map((r) => roleNames[r]).join(", ") || "No role"}</span>
          </div>
          <MenuList>
            <MenuItem onClick={signOut}>Sign out</MenuItem>
          </MenuList>
        </MenuPopover>
      </Menu>
    </header>
  );
}

function Navigation() {
  const [location] = useLocation();
  const { session } = usePortal();
  const oversees = session.roles.includes("complianceOfficer") || session.roles.includes("auditor");
  const entries = [
    { href: "/", name: "Conversations", here: location === "/" || location.startsWith("/conversations/") },
    { href: "/people", name: "Recorded users", here: location === "/people" },
    { href: "/coverage", name: "Coverage", here: location === "/coverage" || location.startsWith("/coverage/") },
    ...(oversees ? [
      { href: "/holds", name: "Legal holds", here: location === "/holds" },
      { href: "/approvals", name: "Approvals", here: location === "/approvals" },
      { href: "/exports", name: "Exports", here: location === "/exports" },
    ] : []),
    ...(oversees || session.roles.includes("administrator") ? [{ href: "/lookbacks", name: "Look-backs", here: location === "/lookbacks" }] : []),
    { href: "/trail", name: "Custody trail", here: location === "/trail" },
  ];
  if (session.roles.length === 0) return null;
  return (
    <nav className="side" aria-label="Portal">
      <ul>
        {entries.map((e) => (
          <li key={e.href}>
            <Link href={e.href} {...(e.here ? { "aria-current": "page" as const } : {})}>{e.name}</Link>
          </li>
        ))}
      </ul>
    </nav>
  );
}

/** The page at this address. A change of page moves the focus to its start. */
function Pages() {
  const [location] = useLocation();
  const main = useRef<HTMLElement>(null);
  const before = useRef(location);
  useEffect(() => {
    if (before.current === location) return;
    before.current = location;
    main.current?.focus();
    window.scrollTo(0, 0);
  }, [location]);
  return (
    <main id="main" ref={main} tabIndex={-1}>
      <Switch>
        <Route path="/"><ConversationsPage /></Route>
        <Route path="/conversations/:id">{(p) => <ConversationPage key={p.id} id={p.id} />}</Route>
        <Route path="/people"><PeoplePage /></Route>
        <Route path="/coverage"><CoveragePage /></Route>
        <Route path="/coverage/:day">{(p) => <CoverageDayPage key={p.day} day={p.day} />}</Route>
        <Route path="/holds"><HoldsPage /></Route>
        <Route path="/approvals"><ApprovalsPage /></Route>
        <Route path="/exports"><ExportsPage /></Route>
        <Route path="/lookbacks"><LookbacksPage /></Route>
        <Route path="/trail"><TrailPage /></Route>
        <Route>
          <Notice title="There is no such page" actions={<Link href="/">Go to conversations</Link>} />
        </Route>
      </Switch>
    </main>
  );
}
