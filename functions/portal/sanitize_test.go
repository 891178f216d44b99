package portal_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"steno/functions/portal"
)

// allowed are the elements that may stand in sanitized HTML. It is a list of its own,
// so that a change of the sanitizer's list is noticed here.
var allowed = strings.Fields("p br div span b strong i em u s sub sup blockquote pre code ul ol li table thead tbody tr td th h1 h2 h3 hr a")

// harmless parses sanitized HTML as a browser would and returns what should not be in
// it. It looks at both ways of parsing: as the body of a page, and with scripting off.
func harmless(markup string) error {
	for _, scripting := range []bool{true, false} {
		body := &html.Node{Type: html.ElementNode, DataAtom: atom.Body, Data: "body"}
		nodes, err := html.ParseFragmentWithOptions(strings.NewReader(markup), body, html.ParseOptionEnableScripting(scripting))
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if err := harmlessNode(n); err != nil {
				return err
			}
		}
	}
	return nil
}

func harmlessNode(n *html.Node) error {
	switch {
	case n.Type == html.TextNode:
		if i := strings.IndexFunc(n.Data, hidden); i >= 0 {
			return fmt.Errorf("text holds %q", n.Data[i:min(len(n.Data), i+4)])
		}
	case n.Type != html.ElementNode:
		return fmt.Errorf("node of type %d: %q", n.Type, n.Data)
	case n.Namespace != "" || !slices.Contains(allowed, n.Data):
		return fmt.Errorf("element %s %s", n.Namespace, n.Data)
	}
	for _, a := range n.Attr {
		if err := harmlessAttribute(n.Data, a); err != nil {
			return err
		}
	}
	for c := range n.ChildNodes() {
		if err := harmlessNode(c); err != nil {
			return err
		}
	}
	return nil
}

func harmlessAttribute(element string, a html.Attribute) error {
	known := map[string]string{"rel": "noopener noreferrer nofollow", "target": "_blank"}
	if element == "a" && a.Namespace == "" {
		if a.Key == "href" && !strings.ContainsFunc(a.Val, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
			for _, scheme := range []string{"http:", "https:", "mailto:"} {
				if strings.HasPrefix(a.Val, scheme) {
					return nil
				}
			}
		}
		if v, ok := known[a.Key]; ok && v == a.Val {
			return nil
		}
	}
	return fmt.Errorf("attribute %s=%q on %s", a.Key, a.Val, element)
}

func hidden(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f || r == 0x61c ||
		unicode.IsControl(r) && r != '\n' && r != '\t'
}

// checkSanitized holds the claims that every input must satisfy.
func checkSanitized(t *testing.T, in string) {
	t.Helper()
	markup, text := portal.Sanitize(in)
	if err := harmless(markup); err != nil {
		t.Errorf("%v\nin  %q\nout %q", err, clip(in), clip(markup))
	}
	if again, _ := portal.Sanitize(markup); again != markup {
		t.Errorf("a second time changes it\nin   %q\nonce  %q\ntwice %q", clip(in), clip(markup), clip(again))
	}
	if i := strings.IndexFunc(text, hidden); i >= 0 || len(text) > portal.MaxText {
		t.Errorf("text of %d bytes holds what hides text at %d, from %q", len(text), i, clip(in))
	}
}

func TestNoVectorGetsThroughTheSanitizer(t *testing.T) {
	vectors := slices.Concat(scriptVectors, urlVectors, structureVectors, foreignVectors, teamsVectors)
	if len(vectors) < 150 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for _, v := range vectors {
		for _, in := range []string{v, "<p>before</p>" + v + "<p>after</p>", "<table><tr><td>" + v, "<div><b><i>" + v + "</b></i>", "<a href='https://contoso.example/'>" + v} {
			checkSanitized(t, in)
		}
	}
}

func TestScriptTextIsGoneAndOrdinaryTextStays(t *testing.T) {
	for _, v := range scriptVectors {
		markup, _ := portal.Sanitize("<p>kept</p>" + v)
		if !strings.HasPrefix(markup, "<p>kept</p>") {
			t.Errorf("%q became %q", v, markup)
		}
	}
	for in, want := range map[string]string{
		`<p>a <b>b</b> <i>c</i></p>`:                     `<p>a <b>b</b> <i>c</i></p>`,
		`<a href="https://contoso.example/?a=1&b=2">x`:   `<a href="https://contoso.example/?a=1&amp;b=2" rel="noopener noreferrer nofollow" target="_blank">x</a>`,
		`<a href="mailto:a@contoso.example">x</a>`:       `<a href="mailto:a@contoso.example" rel="noopener noreferrer nofollow" target="_blank">x</a>`,
		`<a href="javascript:alert(1)">x</a>`:            `<a>x</a>`,
		`<at id="0">Rita</at> hello`:                     `Rita hello`,
		`<emoji id="smile" alt="🙂"></emoji>`:             `🙂`,
		`<img src="https://evil.example/x" alt="a cat">`: `[image: a cat]`,
		`<attachment id="1"></attachment>`:               `[attachment]`,
		`<p style="position:fixed" class="x">x</p>`:      `<p>x</p>`,
		"<pre>\n\ntwo</pre>":                             "<pre>\n\ntwo</pre>",
		`&lt;script&gt;alert(1)&lt;/script&gt;`:          `&lt;script&gt;alert(1)&lt;/script&gt;`,
		"invoice\u202efdp.exe":                           "invoice\ufffdfdp.exe",
		`<table><tr><td>1</td></tr></table>`:             `<table><tbody><tr><td>1</td></tr></tbody></table>`,
	} {
		if got, _ := portal.Sanitize(in); got != want {
			t.Errorf("%q\n got %q\nwant %q", in, got, want)
		}
	}
}

// hostile is markup of n bytes, large or deep, by what it is meant to wear out.
func hostile(n int) map[string]string {
	fill := func(s string, n int) string { return strings.Repeat(s, n/len(s)) }
	return map[string]string{
		"plain text":            fill("lorem ipsum ", n),
		"paragraphs":            fill("<p>word</p>", n),
		"20,000 nodes and more": strings.Repeat("<br>", 25_000),
		"deep divs":             fill("<div>", n),
		"depth of 400":          strings.Repeat("<div>", 400) + "x" + strings.Repeat("</div>", 400),
		"unclosed formatting":   fill("<b><i><u>", n),
		"adoption agency":       fill("<b><p></b>", n),
		"nested links":          fill("<a><b>", n),
		"misnested tables":      fill("<table><b>", n),
		"foster parenting":      "<table>" + fill("<b>x</b>", n-8),
		"attributes":            "<p " + fill("a=b ", n-4) + ">",
		"different attributes":  "<p " + distinct(n-16) + ">",
		"entities":              fill("&lt;&#x202e;&amp;", n),
		"open angle brackets":   fill("<", n),
		"comments":              fill("<!---->", n),
		"open comment":          "<!--" + fill("-", n-4),
		"open attribute":        `<a href="` + fill("x", n-10),
		"select in select":      fill("<select><option>", n),
		"svg in math":           fill("<svg><math>", n),
		"end tags":              fill("</p>", n),
		"links":                 fill(`<a href="https://contoso.example/">x</a>`, n),
		"headings":              fill("<h1><h2>", n),
		"lists":                 fill("<li><ul>", n),
	}
}

func distinct(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "a%d=b ", i)
	}
	return b.String()[:n]
}

func TestHostileSizesAreSanitizedInTime(t *testing.T) {
	// The limit is 50 ms a MiB. Other work on the machine gets ten times that, and of
	// three tries the best counts.
	const budget = 500 * time.Millisecond
	for name, in := range hostile(portal.MaxHTML / slowdown) {
		best := time.Hour
		for try := 0; try < 3 && best > budget/10; try++ {
			start := time.Now()
			markup, _ := portal.Sanitize(in)
			best = min(best, time.Since(start))
			if err := harmless(markup); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		t.Logf("%-24s %8d bytes, %v", name, len(in), best)
		if best > budget {
			t.Errorf("%s took %v", name, best)
		}
	}
}

func TestTooManyNodesAreCutAndSaidSo(t *testing.T) {
	for _, in := range []string{strings.Repeat("<br>", 25_000), strings.Repeat("<div>", 100) + "deep"} {
		markup, _ := portal.Sanitize(in)
		if !strings.HasSuffix(markup, "<p>[cut here; the original is kept]</p>") {
			t.Errorf("no word about the cut at the end of %d bytes", len(markup))
		}
		checkSanitized(t, in)
	}
	markup, text := portal.Sanitize(strings.Repeat("x", portal.MaxHTML+1))
	if !strings.Contains(markup, "larger than can be shown") || text != markup {
		t.Errorf("got %q", clip(markup))
	}
}

func FuzzSanitize(f *testing.F) {
	for _, v := range slices.Concat(structureVectors, foreignVectors) {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if len(in) < 64<<10 {
			checkSanitized(t, in)
		}
	})
}

func BenchmarkSanitize(b *testing.B) {
	for name, in := range hostile(portal.MaxHTML) {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				portal.Sanitize(in)
			}
		})
	}
}
