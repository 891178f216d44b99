package conversation

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"

	"steno/shared/teams"
)

// Limits of what is looked for in a message. What is beyond them is in the message, which
// is kept whole.
const (
	// MaxReferences is how many things one message may point at.
	MaxReferences = 256
	// MaxSource is the longest address that is taken. SharePoint's are 400 characters at
	// most after the host, which three bytes each may encode.
	MaxSource = 8 << 10
	// maxMarkup is how much of a body or a card is read.
	maxMarkup = 1 << 20
	// maxName bounds a name.
	maxName = 1 << 10
)

// pointing is the part of chatMessage that points at something. Members that are not as
// Graph describes them point at nothing.
// https://learn.microsoft.com/graph/api/resources/chatmessageattachment
type pointing struct {
	Body struct {
		ContentType string `json:"contentType"`
		Content     string `json:"content"`
	} `json:"body"`
	Attachments []struct {
		ID          string `json:"id"`
		ContentType string `json:"contentType"`
		ContentURL  string `json:"contentUrl"`
		Content     string `json:"content"`
		Name        string `json:"name"`
	} `json:"attachments"`
	Reactions []struct {
		DisplayName string `json:"displayName"`
		ContentURL  string `json:"reactionContentUrl"`
	} `json:"reactions"`
}

// FromOutside reports whether a message names a sender of another organization than tenant:
// her files lie there.
func FromOutside(m Message, tenant teams.TenantID) bool {
	var p struct {
		From struct {
			User struct {
				TenantID string `json:"tenantId"`
			} `json:"user"`
		} `json:"from"`
	}
	return json.Unmarshal(m.Raw, &p) == nil && p.From.User.TenantID != "" && !strings.EqualFold(p.From.User.TenantID, string(tenant))
}

// gathering collects references, each once.
type gathering struct {
	of   Message
	seen map[AttachmentID]bool
	out  []Reference
}

func (g *gathering) add(kind AttachmentKind, name, contentType, source, identity string) {
	r := Reference{Kind: kind, Name: cut(name, maxName), Type: cut(contentType, maxName), Source: source}
	if kind.Elsewhere() {
		switch { // what is no address ends as malformed
		case source == "":
			r.Source = "none:" + hexSum([]byte(identity))
		case len(source) > MaxSource:
			r.Source = "overlong:" + hexSum([]byte(source))
		}
		identity = r.Source
	}
	r.ID = AttachmentIDOf(g.of.Thread, g.of.Message, kind, identity)
	if g.seen[r.ID] || len(g.out) >= MaxReferences {
		return
	}
	g.seen[r.ID] = true
	g.out = append(g.out, r)
}

// cut shortens text to n bytes at most, and to valid UTF-8.
func cut(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "\uFFFD") }

// ReferencesOf lists what a message points at, in the order in which it does: its attachments,
// the images and emoji of its body, and the pictures of its reactions. It never fails, and
// depends on the message alone. What is of a kind that this build does not know is listed as
// KindOther.
func ReferencesOf(m Message) []Reference {
	var p pointing
	if m.Unclear != nil || json.Unmarshal(m.Raw, &p) != nil {
		return nil
	}
	g := &gathering{of: m, seen: map[AttachmentID]bool{}}
	for _, a := range p.Attachments {
		g.attachment(a.ID, a.ContentType, a.ContentURL, a.Content, a.Name)
	}
	if strings.EqualFold(p.Body.ContentType, "html") {
		g.markup(p.Body.Content)
	}
	for _, r := range p.Reactions {
		if r.ContentURL != "" {
			g.add(KindEmoji, r.DisplayName, "", r.ContentURL, "")
		}
	}
	return g.out
}

// cardPrefix begins the content types of cards.
const cardPrefix = "application/vnd.microsoft.card."

func (g *gathering) attachment(id, contentType, source, content, name string) {
	switch t := strings.ToLower(contentType); {
	case t == "reference":
		g.add(KindFile, name, contentType, source, id)
	case t == cardPrefix+"codesnippet":
		if u := member(content, "codeSnippetUrl"); u != "" && u != loopPlaceholder {
			g.add(KindSnippet, name, contentType, u, "")
		}
	case t == cardPrefix+"fluidembedcard":
		if u := member(content, "componentUrl"); u != "" {
			g.add(KindLoop, name, contentType, u, "")
		}
	case strings.HasPrefix(t, cardPrefix), strings.HasPrefix(t, "application/vnd.microsoft.teams.card."):
		g.add(KindCard, name, contentType, "", id+"\x00"+content)
		g.card(content)
	case t == "messagereference", t == "forwardedmessagereference":
		g.add(KindQuote, name, contentType, "", id+"\x00"+content)
	case t == "meetingreference", t == "tabreference":
		g.add(KindMeeting, name, contentType, "", id+"\x00"+content)
	default:
		g.add(KindOther, name, contentType, "", id+"\x00"+content+"\x00"+source)
	}
}

// loopPlaceholder stands where a client that knows no Loop would show code.
const loopPlaceholder = "FLUID_PLACEHOLDER_CARD"

// member returns a text member of a JSON object that is written as a string.
func member(content, name string) string {
	var members map[string]json.RawMessage
	var text string
	if len(content) > maxMarkup || json.Unmarshal([]byte(content), &members) != nil || json.Unmarshal(members[name], &text) != nil {
		return ""
	}
	return text
}

// card lists the images of a card that Microsoft hosts. Whatever else a card names was put
// there by a bot and is none of the sender's files.
func (g *gathering) card(content string) {
	var v any
	if len(content) > maxMarkup || json.Unmarshal([]byte(content), &v) != nil {
		return
	}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(name, e)
			}
		case map[string]any:
			for _, k := range sortedKeys(v) {
				walk(k, v[k])
			}
		case string:
			switch strings.ToLower(name) {
			case "url", "iconurl", "backgroundimage", "image", "cardimage":
				if hosted(v) {
					g.add(KindCardImage, "", "", v, "")
				}
			}
		}
	}
	walk("", v)
}

// hosted reports whether an address reads like content that Teams hosts.
func hosted(s string) bool {
	u, err := url.Parse(s)
	return err == nil && strings.EqualFold(u.Host, "graph.microsoft.com") && strings.Contains(u.Path, "/hostedContents/")
}

// markup lists the images and emoji of a body.
func (g *gathering) markup(body string) {
	z := html.NewTokenizer(strings.NewReader(body[:min(len(body), maxMarkup)]))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return // the end: a tokenizer of a string has no other error
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			kind := KindImage
			switch t.Data {
			case "img":
			case "customemoji":
				kind = KindEmoji
			default:
				continue
			}
			source, name := "", ""
			for _, a := range t.Attr {
				switch a.Key {
				case "src":
					if kind == KindImage {
						source = a.Val
					}
				case "source":
					if kind == KindEmoji {
						source = a.Val
					}
				case "alt":
					name = a.Val
				}
			}
			if source != "" && !strings.HasPrefix(strings.ToLower(source), "data:") { // a data URL stands in the message
				g.add(kind, name, "", source, "")
			}
		}
	}
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
