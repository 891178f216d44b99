package sim

import (
	"bytes"
	"strings"
	"testing"
)

func FuzzOggPagesAreReadOrRefused(f *testing.F) {
	f.Add(speechFile[:400])
	f.Add(speechFile)
	f.Add([]byte("OggS"))
	f.Fuzz(func(t *testing.T, file []byte) {
		packets, err := oggPackets(file)
		if err != nil {
			return
		}
		if n := len(bytes.Join(packets, nil)); n > len(file) {
			t.Errorf("%d bytes of packets in a file of %d", n, len(file))
		}
	})
}

func FuzzAnswersAreTakenOrRefused(f *testing.F) {
	f.Add("https://bot.example/calls", "audio", "#microsoft.graph.appHostedMediaConfig", "{}")
	f.Add("http://bot.example", "", "", "")
	f.Fuzz(func(t *testing.T, callback, modality, config, blob string) {
		fault := checkAnswer(callback, []string{modality}, config, blob)
		if fault == "" && callback != "" && !strings.EqualFold(callback[:min(6, len(callback))], "https:") {
			t.Errorf("%q was taken as a callback", callback)
		}
	})
}
