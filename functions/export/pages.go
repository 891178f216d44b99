package export

import (
	"bytes"
	"html/template"
	"strings"
	"time"

	"steno/shared/policy"
)

type indexRow struct {
	Title, ID, Kind, Start, End string
	Files                       []string
	Media                       []string
}

// indexPage is a page to look through a package. It is made of text alone: what people
// wrote cannot become markup, and nothing runs.
func indexPage(o policy.ExportOrder, items []item, made []derived) []byte {
	data := struct {
		Title, Export, Made string
		Rows                []indexRow
	}{Title: "Export package", Export: o.ID, Made: o.MadeAt.UTC().Format("2006-01-02 15:04 UTC")}
	files := map[string][]string{} // by the first evidence they are made of
	for _, d := range made {
		if len(d.From) > 0 {
			unit := strings.SplitN(d.From[0], "/", 3)[1]
			files[unit] = append(files[unit], d.Path)
		}
	}
	for _, it := range items {
		r := indexRow{
			Title: titleOf(it.facts), ID: string(it.facts.ID), Kind: string(it.facts.Modality),
			Start: it.facts.First.UTC().Format(time.DateTime), End: it.facts.Last.UTC().Format(time.DateTime),
		}
		for _, u := range it.units {
			for _, f := range files[u.name] {
				if strings.HasPrefix(f, "media/") && strings.HasSuffix(f, ".mp4") {
					r.Media = append(r.Media, f)
				} else {
					r.Files = append(r.Files, f)
				}
			}
		}
		data.Rows = append(data.Rows, r)
	}
	var b bytes.Buffer
	if err := index.Execute(&b, data); err != nil {
		panic("export: the index page does not fit its data: " + err.Error()) // it fits or it never did
	}
	return b.Bytes()
}

var index = template.Must(template.New("index").Parse(pageHead + `<h1>{{.Title}}</h1>
<p class="s">Export {{.Export}}, ordered {{.Made}}. Times are UTC. See README.txt for how to check that nothing was changed.</p>
<table><thead><tr><th scope="col">Conversation</th><th scope="col">When</th><th scope="col">Files</th></tr></thead><tbody>
{{range .Rows}}<tr><td>{{.Title}}<div class="s">{{.Kind}}, {{.ID}}</div></td><td>{{.Start}}<br>{{.End}}</td><td>
{{range .Media}}<div><a href="{{.}}">{{.}}</a><br><audio controls preload="none" src="{{.}}"></audio></div>{{end}}
{{range .Files}}<div><a href="{{.}}">{{.}}</a></div>{{end}}</td></tr>{{end}}</tbody></table>
<p><a href="custody/extract.csv">Who did what to these conversations</a></p></body></html>`))
