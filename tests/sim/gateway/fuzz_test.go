package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

func FuzzControlLinesAreReadOrRefused(f *testing.F) {
	f.Add([]byte(`{"t":"ping","seq":1}` + "\n" + `{"t":"keyframe","track":"v0"}`))
	f.Add([]byte("\n\n{\"t\":\"bound\",\"n\":17}\n"))
	f.Add([]byte(`{"t":`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, message []byte) {
		lines, err := parseControl(message)
		if err != nil {
			return
		}
		for _, l := range lines {
			b, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseControl(b)
			if err != nil || len(again) != 1 || again[0] != l {
				t.Errorf("%s was read as %v, %v", b, again, err)
			}
		}
	})
}

func FuzzPacketsCarryEveryByteOfAnAccessUnit(f *testing.F) {
	f.Add(NewCamera(32, 32, 7).Frame(true))
	f.Add([]byte{0, 0, 1, 1, 0, 0, 1, 9})
	f.Add([]byte{0, 0, 0, 1, 0x41})
	f.Fuzz(func(t *testing.T, stream []byte) {
		nals := splitAnnexB(stream)
		var back [][]byte
		for _, p := range packetize(nals) {
			if len(p) > maxPayload {
				t.Fatalf("a payload of %d bytes", len(p))
			}
			if p[0]&0x1f != nalFUA || len(p) < 3 || !fragment(nals, p) {
				back = append(back, p)
				continue
			}
			if p[1]&0x80 != 0 {
				back = append(back, []byte{p[0]&0xe0 | p[1]&0x1f})
			}
			back[len(back)-1] = append(back[len(back)-1], p[2:]...)
		}
		if !bytes.Equal(bytes.Join(back, []byte{0, 0, 1}), bytes.Join(nals, []byte{0, 0, 1})) {
			t.Errorf("%d NAL units came back as %d others", len(nals), len(back))
		}
	})
}

// fragment reports whether a payload of type 28 is a fragment, not a NAL unit of that (reserved) type.
func fragment(nals [][]byte, p []byte) bool {
	for _, n := range nals {
		if bytes.Equal(n, p) {
			return false
		}
	}
	return true
}

func FuzzNoBodyMakesTheGatewayFail(f *testing.F) {
	g, err := Start(Config{TestMode: true, MaxCalls: 4})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := g.Close(); err != nil {
			f.Error(err)
		}
	})
	c, err := newCall(g, createRequest{CallID: "fuzz"})
	if err != nil {
		f.Fatal(err)
	}
	g.calls["fuzz"] = c
	paths := []string{"POST /v1/calls", "PUT /v1/calls/fuzz/answer", "POST /v1/calls/fuzz/gate", "PUT /v1/calls/fuzz/subscriptions/v0", "POST /v1/test/calls/fuzz/ticks", "POST /v1/test/calls/fuzz/video"}
	f.Add(uint(0), []byte(`{"callId":"a","video":{"sockets":1},"vbss":true}`))
	f.Add(uint(1), []byte(`{"sessionId":"x","type":"answer","sdp":"v=0\r\n"}`))
	f.Add(uint(1), []byte(`{"sessionId":"`+c.session+`","type":"answer","sdp":"v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"}`))
	f.Add(uint(2), []byte(`{"sessionId":"`+c.session+`","state":"open","ack":{"status":"recording"}}`))
	f.Add(uint(3), []byte(`{"source":"12","resolution":"HD720p"}`))
	f.Add(uint(4), []byte(`{"burst":true,"ticks":[{"ts":"1","unmixed":[1,1,2,3,4,5],"mixed":7}]}`))
	f.Add(uint(5), []byte(`{"frames":[{"socket":"v0","ts":"-9","annexB":"AAABZw=="}]}`))
	handler := g.handler()
	f.Fuzz(func(t *testing.T, which uint, body []byte) {
		method, path, _ := bytes.Cut([]byte(paths[which%uint(len(paths))]), []byte(" "))
		r := httptest.NewRequest(string(method), "http://"+g.addr+string(path), bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+g.token)
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%s %s: %s", method, path, w.Body)
		}
	})
}
