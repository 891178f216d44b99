package portal

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"steno/shared/conversation"
)

// Limits of message HTML.
const (
	maxHTML  = 1 << 20
	maxNodes = 20_000
	maxDepth = 64
	maxText  = 256 << 10
	// maxTags bounds what is parsed at all: an element that is kept takes two.
	maxTags = 3 * maxNodes
)

// kept are the elements that are kept, without any attribute but a link's target.
// Teams' own elements at, emoji and attachment become text.
var kept = map[atom.Atom]bool{
	atom.P: true, atom.Br: true, atom.Div: true, atom.Span: true, atom.B: true, atom.Strong: true, atom.I: true,
	atom.Em: true, atom.U: true, atom.S: true, atom.Sub: true, atom.Sup: true, atom.Blockquote: true, atom.Pre: true,
	atom.Code: true, atom.Ul: true, atom.Ol: true, atom.Li: true, atom.Table: true, atom.Thead: true, atom.Tbody: true,
	atom.Tr: true, atom.Td: true, atom.Th: true, atom.H1: true, atom.H2: true, atom.H3: true, atom.Hr: true,
	atom.A: true,
}

// dropped are the elements that go with everything inside them: active, hidden, or
// parsed by other rules than the rest.
var dropped = []string{
	"script", "style", "template", "noscript", "iframe", "object", "embed", "form", "input", "svg", "math", "base", "meta",
	"link", "title", "textarea", "select", "option", "xmp", "noembed", "noframes", "plaintext", "selectedcontent", "button",
	"audio", "video", "source", "track", "canvas", "map", "area", "frame", "frameset", "applet", "dialog", "portal", "head",
}

// maxRounds is how often markup is written and read again until it stays the same.
const maxRounds = 4

// sanitize takes the HTML of a message apart and writes again only what is on the
// list: markup is never passed on as it came. It returns HTML for a sandboxed frame
// and the text alone. Images become their alternative text; nothing in the result
// makes a browser ask for anything.
//
// What is returned reads back as exactly what was written, so that no second parser
// finds a tree in it that was not looked at. Markup that does not settle is shown as text.
func sanitize(in string) (markup, text string) {
	if len(in) > maxHTML {
		note := "This message is larger than can be shown. Its original is kept."
		return escapeText(note), note
	}
	markup, text = rewrite(in)
	for range maxRounds {
		again, _ := rewrite(markup)
		if again == markup {
			return markup, text
		}
		markup = again
	}
	return escapeText(text), text
}

func rewrite(in string) (markup, text string) {
	body := &html.Node{Type: html.ElementNode, DataAtom: atom.Body, Data: "body"}
	whole := in
	in = clipTags(in)
	nodes, err := html.ParseFragment(strings.NewReader(in), body)
	if err != nil { // nested deeper than the parser goes
		text = clipText(visible(in))
		return escapeText(text), text
	}
	s := sanitizer{cut: len(in) < len(whole)}
	for _, n := range nodes {
		s.node(n, 0)
	}
	if s.cut {
		s.markup.WriteString("<p>[cut here; the original is kept]</p>")
	}
	return s.markup.String(), clipText(strings.TrimSpace(s.text.String()))
}

// clipTags ends the input before its tags become too many.
func clipTags(in string) string {
	for i, n := 0, 0; ; n++ {
		next := strings.IndexByte(in[i:], '<')
		if next < 0 {
			return in
		}
		if i += next; n == maxTags {
			return in[:i]
		}
		i++
	}
}

func clipText(t string) string {
	if len(t) > maxText {
		return strings.ToValidUTF8(t[:maxText], "")
	}
	return t
}

type sanitizer struct {
	markup, text strings.Builder
	nodes        int
	cut          bool
}

func (s *sanitizer) write(t string) {
	s.text.WriteString(visible(t))
	s.markup.WriteString(escapeText(t))
}

func (s *sanitizer) node(n *html.Node, depth int) {
	s.nodes++
	if s.nodes > maxNodes || depth > maxDepth {
		s.cut = true
		return
	}
	switch {
	case n.Type == html.TextNode:
		s.write(n.Data)
		return
	case n.Type != html.ElementNode || n.Namespace != "" || slices.Contains(dropped, n.Data):
		return
	}
	switch n.Data {
	case "img":
		s.write("[image" + label(n, "alt") + "]")
		return
	case "emoji", "customemoji":
		s.write(attribute(n, "alt"))
		return
	case "attachment":
		s.write("[attachment]")
		return
	}
	keep := kept[n.DataAtom]
	if keep {
		s.markup.WriteString("<" + n.DataAtom.String())
		if n.DataAtom == atom.A {
			s.link(attribute(n, "href"))
		}
		s.markup.WriteString(">")
		if n.DataAtom == atom.Pre {
			s.markup.WriteByte('\n') // a parser drops one here
		}
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		s.node(c, depth+1)
	}
	switch n.DataAtom {
	case atom.P, atom.Div, atom.Br, atom.Li, atom.Tr, atom.H1, atom.H2, atom.H3, atom.Blockquote, atom.Pre:
		s.text.WriteByte('\n')
	}
	if keep && n.DataAtom != atom.Br && n.DataAtom != atom.Hr {
		s.markup.WriteString("</" + n.DataAtom.String() + ">")
	}
}

// link keeps a target that is plainly web or mail. Control characters and white space
// inside are what browsers strip before they see javascript:, so they disqualify.
func (s *sanitizer) link(href string) {
	href = strings.TrimSpace(href)
	if strings.ContainsFunc(href, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return
	}
	u, err := url.Parse(href)
	if err != nil || !slices.Contains([]string{"http", "https", "mailto"}, u.Scheme) {
		return
	}
	s.markup.WriteString(` href="` + html.EscapeString(u.String()) + `" rel="noopener noreferrer nofollow" target="_blank"`)
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Namespace == "" && a.Key == name {
			return a.Val
		}
	}
	return ""
}

func label(n *html.Node, name string) string {
	if v := strings.TrimSpace(attribute(n, name)); v != "" {
		return ": " + v
	}
	return ""
}

// visible makes characters that turn the direction of text or hide it show as what
// they are: a file name must not read backwards.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
			return unicode.ReplacementChar
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, s)
}

// visibleNames returns the facts with the participants' names made visible: a guest
// chooses her name herself.
func visibleNames(c conversation.Conversation) conversation.Conversation {
	c.Participants = slices.Clone(c.Participants)
	for i := range c.Participants {
		c.Participants[i].Name = visible(c.Participants[i].Name)
	}
	if c.Call != nil {
		facts := *c.Call
		facts.Subject = visible(facts.Subject)
		c.Call = &facts
	}
	return c
}

func escapeText(s string) string { return html.EscapeString(visible(s)) }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
