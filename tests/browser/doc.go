// Package browser proves the portal in a real browser: its pages as Vite built them,
// its handler, and a sign-in with Microsoft's library against the Entra stand-in, all
// under one https origin.
//
// The claims stand in pages.test.mjs; each becomes a subtest of TestPages. The browser
// is the machine's Chromium; CHROMIUM names another.
package browser
