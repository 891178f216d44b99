package portal_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"steno/functions/portal"
	"steno/shared/conversation"
	"steno/shared/teams"
)

var update = flag.Bool("update", false, "write the golden files anew")

// roles are the callers of the matrix, in its order. No person means no token.
var roles = []struct {
	name   string
	person teams.PersonID
}{
	{"nobody", ""}, {"no role", otto}, {"recorded user of north", rita}, {"supervisor of north", nora}, {"supervisor of south", saul},
	{"compliance officer", carla}, {"administrator", adam}, {"auditor", aida}, {"administrator and compliance officer", uma},
}

// matrixFile is the address of the file that a message of each desk points at.
const matrixFile = "https://contoso.sharepoint.com/x.pdf"

// asked is one request of the matrix: a pattern with an item put in.
func asked(pattern, item string) string {
	thread := map[string]teams.ThreadID{"north": northThread, "south": southThread, "missing": nobodys}[item]
	if strings.Contains(pattern, "{leg}") {
		call := map[string]teams.CallID{"north": northCall, "south": southCall, "missing": "nobodys-call"}[item]
		pattern = strings.NewReplacer("{id}", callID(call), "{leg}", string(conversation.LegOf(tenant, call)), "{kind}/{lane}/{file}", "audio/mixed/1-0.m4s",
			"{kind}/{file}", "audio/mixed.m3u8", "{file}", "master.m3u8", "{name}", "1-0").Replace(pattern)
	}
	r := strings.NewReplacer("{export}", strings.Repeat("0", 32), "{lookback}", strings.Repeat("0", 32), "{id}", idOf(thread), "{thread}", string(conversation.KeyOf(tenant, thread)), "{message}", "1773050400000", "{etag}", "1", "{day}", map[string]string{"missing": "2026-03-07"}[item]+map[string]string{"north": "2026-03-08", "south": "2026-03-08"}[item], "{part}", "statement",
		"{attachment}", string(conversation.AttachmentIDOf(thread, "1773050400000", conversation.KindFile, matrixFile)))
	return r.Replace(pattern)
}

// summary is what the matrix says of an answer: the status, and how many of what.
func summary(t *testing.T, rec *httptest.ResponseRecorder) string {
	t.Helper()
	out := fmt.Sprint(rec.Code)
	if rec.Code != http.StatusOK || rec.Header().Get("Content-Type") != "application/json" {
		return out
	}
	var v struct {
		Conversations, People, Messages []json.RawMessage
		Roles                           []string
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	for name, list := range map[string][]json.RawMessage{"conversations": v.Conversations, "people": v.People, "messages": v.Messages} {
		if list != nil {
			out += fmt.Sprintf(" %d %s", len(list), name)
		}
	}
	if v.Roles != nil {
		out += fmt.Sprintf(" %v", v.Roles)
	}
	return out
}

func TestEveryRouteAnswersEveryRoleAsTheMatrixSays(t *testing.T) {
	w := newWorld(t)
	w.ring(rita, northCall)
	w.ring(sven, southCall)
	w.stated()
	w.attach(rita, conversation.ID(idOf(northThread)), northThread, "1773050400000", "x.pdf", matrixFile, []byte("north secret"))
	w.attach(sven, conversation.ID(idOf(southThread)), southThread, "1773050400000", "x.pdf", matrixFile, []byte("south secret"))
	doc := readDocument(t)
	var got strings.Builder
	for _, pattern := range portal.Patterns() {
		items := []string{""}
		if strings.Contains(pattern, "{") {
			items = []string{"north", "south", "missing"}
		}
		if pattern == "conversations" {
			pattern, items = "conversations?person={person}", []string{"", string(rita), string(sven), string(otto)}
		}
		for _, item := range items {
			for _, role := range roles {
				path, label := asked(pattern, item), item
				if p, ok := strings.CutSuffix(pattern, "?person={person}"); ok {
					path, label = p, map[string]string{"": "", string(rita): "of Rita", string(sven): "of Sven", string(otto): "of a stranger"}[item]
					if item != "" {
						path += "?person=" + item
					}
				}
				h := http.Header{}
				if role.person != "" {
					h.Set("Authorization", "Bearer "+w.token(role.person))
				}
				rec := w.send(http.MethodGet, "/steno/v1/"+path, h)
				checkAnswer(t, doc, "/"+strings.TrimSuffix(pattern, "?person={person}"), rec)
				fmt.Fprintf(&got, "%-66s %-14s %-38s %s\n", strings.TrimSuffix(pattern, "?person={person}"), label, role.name, summary(t, rec))
			}
		}
	}
	golden(t, "matrix.golden", got.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g, e := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(e)) {
		if i >= len(g) || i >= len(e) || g[i] != e[i] {
			t.Fatalf("%s line %d differs; run with -update if that is meant\n got %q\nwant %q", name, i+1, at(g, i), at(e, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}

func readDocument(t *testing.T) document {
	t.Helper()
	var doc document
	if err := json.Unmarshal(portal.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// checkAnswer holds an answer against what the document says of the path.
func checkAnswer(t *testing.T, doc document, path string, rec *httptest.ResponseRecorder) {
	t.Helper()
	checkAnswerTo(t, doc, "get", path, rec)
}

func checkAnswerTo(t *testing.T, doc document, method, path string, rec *httptest.ResponseRecorder) {
	t.Helper()
	response, ok := doc.Paths[path][method].Responses[fmt.Sprint(rec.Code)]
	if !ok {
		t.Fatalf("%s answers %d, which the document does not have", path, rec.Code)
	}
	kind := rec.Header().Get("Content-Type")
	content, ok := response.Content[kind]
	if !ok {
		t.Fatalf("%s answers %d as %s, which the document does not have", path, rec.Code, kind)
	}
	if !strings.Contains(kind, "json") {
		return
	}
	dec := json.NewDecoder(strings.NewReader(rec.Body.String()))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	if err := doc.valid(content.Schema, v, path); err != nil {
		t.Fatalf("%v in %s", err, clip(rec.Body.String()))
	}
}

func TestRoutesAndOpenAPIDocumentAreTheSame(t *testing.T) {
	doc := readDocument(t)
	patterns := portal.Patterns()
	for path, operations := range doc.Paths {
		for method, op := range operations {
			if list := map[string][]string{"get": patterns, "post": portal.Changes()}[method]; !slices.Contains(list, strings.TrimPrefix(path, "/")) {
				t.Errorf("%s %s is in the document and not in the routes", method, path)
			}
			if len(op.Security) != 1 || op.Security[0]["entra"] == nil {
				t.Errorf("%s asks for no sign-in", path)
			}
			for _, p := range op.Parameters {
				if (p.In == "path") != strings.Contains(path, "{"+p.Name+"}") {
					t.Errorf("%s: parameter %s is said to be in %s", path, p.Name, p.In)
				}
			}
		}
	}
	for _, pattern := range patterns {
		if _, ok := doc.Paths["/"+pattern]["get"]; !ok {
			t.Errorf("%s is a route without an entry in the document", pattern)
		}
	}
}

func TestDocumentIsServedAsItIs(t *testing.T) {
	w := newWorld(t)
	rec := w.send(http.MethodGet, "/steno/v1/openapi.json", nil)
	want(t, rec, http.StatusOK)
	if rec.Body.String() != string(portal.OpenAPI()) {
		t.Fatal("another document is served")
	}
}
