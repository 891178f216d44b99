// The handler of the tests: what a function does is said by its name, and what the host sent is told by GET /api/inspect.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

type call struct {
	Method, Path, Length, Body string
	Encoding                   []string
	Header                     http.Header
}

var (
	mu    sync.Mutex
	calls []call
)

const ok = `{"Outputs":{},"Logs":["said"],"ReturnValue":null}`

func main() {
	if code := os.Getenv("EXIT_ON_START"); code != "" {
		var n int
		fmt.Sscan(code, &n)
		os.Exit(n)
	}
	if os.Getenv("NEVER_READY") != "" {
		select {}
	}
	fmt.Println("listening", os.Getenv("FUNCTIONS_HTTPWORKER_PORT"), os.Getenv("FUNCTIONS_APP_ROOT_PATH") != "")
	err := http.ListenAndServe("127.0.0.1:"+os.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT"), http.HandlerFunc(serve))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" {
		http.NotFound(w, r) // any answer is readiness
		return
	}
	if r.URL.Path == "/api/inspect" {
		mu.Lock()
		defer mu.Unlock()
		json.NewEncoder(w).Encode(calls)
		return
	}
	body, _ := io.ReadAll(r.Body)
	mu.Lock()
	calls = append(calls, call{r.Method, r.RequestURI, fmt.Sprint(r.ContentLength), string(body), r.TransferEncoding, r.Header})
	mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/api/") {
		web(w, r, body)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	act(w, r, strings.TrimPrefix(r.URL.Path, "/"))
}

func act(w http.ResponseWriter, r *http.Request, function string) {
	name, _, _ := strings.Cut(function, "-")
	switch name {
	case "fail":
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, ok)
	case "empty":
	case "null":
		io.WriteString(w, "null")
	case "nocontent":
		w.WriteHeader(http.StatusNoContent)
	case "text":
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, ok)
	case "broken":
		io.WriteString(w, `{"Outputs":`)
	case "redirect":
		http.Redirect(w, r, "/ok", http.StatusMovedPermanently)
	case "base64":
		io.WriteString(w, `{"Outputs":{},"Logs":[],"ReturnValue":"abcd1234"}`)
	case "outputs":
		io.WriteString(w, `{"Outputs":{"nowhere":"x y"},"Logs":[],"ReturnValue":null}`)
	case "slow":
		fmt.Println("slow began")
		time.Sleep(time.Minute)
		io.WriteString(w, ok)
	case "pause":
		time.Sleep(300 * time.Millisecond)
		io.WriteString(w, ok)
	case "once": // fails the first time
		mu.Lock()
		n := 0
		for _, c := range calls {
			if c.Path == r.RequestURI {
				n++
			}
		}
		mu.Unlock()
		if n == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		io.WriteString(w, ok)
	case "exit0":
		os.Exit(0)
	case "exit1":
		os.Exit(1)
	case "exit200":
		os.Exit(200)
	case "stderr":
		fmt.Fprint(os.Stderr, "plain\nwarning: careful\n")
		io.WriteString(w, ok)
	case "answer":
		io.WriteString(w, `{"Outputs":{"res":{"statusCode":"201","body":"made","headers":{"X-A":"b"}}},"Logs":[],"ReturnValue":null}`)
	default:
		io.WriteString(w, ok)
	}
}

func web(w http.ResponseWriter, r *http.Request, body []byte) {
	switch {
	case r.URL.Path == "/api/error":
		http.Error(w, "sorry", http.StatusInternalServerError)
	case strings.HasPrefix(r.URL.Path, "/api/stream"):
		for range 3 {
			io.WriteString(w, "x")
			http.NewResponseController(w).Flush()
			<-time.After(10 * time.Millisecond)
		}
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(body)
	}
}
