package record_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const room = 1234

// janus is a Janus gateway whose VideoRoom records what is published.
// https://janus.conf.meetecho.com/docs/videoroom.html
type janus struct {
	cmd     *exec.Cmd
	dir     string
	session int64
	events  map[int64]chan event // by handle
}

type event struct {
	Janus  string
	Sender int64
	Data   struct{ ID int64 }
	JSEP   struct{ Type, SDP string }
	Plugin struct{ Data json.RawMessage } `json:"plugindata"`
	Error  struct{ Reason string }
}

const janusAPI = "http://127.0.0.1:8088/janus"

func startJanus(b *testing.B) subject {
	b.Helper()
	dir := b.TempDir()
	recordings := filepath.Join(dir, "rec")
	files := map[string]string{
		"janus.jcfg":                "general: { debug_level = 2\n session_timeout = 0 }\nnat: { ice_enforce_list = \"v0\" }\nplugins: { disable = \"libjanus_voicemail.so,libjanus_recordplay.so,libjanus_streaming.so,libjanus_audiobridge.so,libjanus_echotest.so,libjanus_sip.so,libjanus_nosip.so,libjanus_textroom.so,libjanus_videocall.so,libjanus_duktape.so,libjanus_lua.so\" }\ntransports: { disable = \"libjanus_rabbitmq.so,libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_websockets.so\" }\nloggers: { disable = \"libjanus_jsonlog.so\" }\nevents: { disable = \"libjanus_gelfevh.so,libjanus_mqttevh.so,libjanus_nanomsgevh.so,libjanus_rabbitmqevh.so,libjanus_sampleevh.so,libjanus_wsevh.so\" }\n",
		"janus.transport.http.jcfg": "general: { json = \"plain\"\n base_path = \"/janus\"\n http = true\n port = 8088\n ip = \"127.0.0.1\"\n https = false }\nadmin: { admin_http = false }\n",
		"janus.plugin.videoroom.jcfg": fmt.Sprintf("room-%d: { description = \"bench\"\n publishers = 1000\n record = true\n rec_dir = %q\n audiocodec = \"opus\"\n audiolevel_ext = false\n transport_wide_cc_ext = false }\n",
			room, recordings),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	j := &janus{dir: recordings, events: map[int64]chan event{}}
	j.cmd = exec.Command("janus", "-F", dir, "-o")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	j.cmd.Stdout, j.cmd.Stderr = log, log
	if err := j.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		var e event
		if err = j.ask("", map[string]any{"janus": "create"}, &e); err == nil {
			j.session = e.Data.ID
			break
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(log.Name())
			b.Fatalf("janus does not answer: %v\n%s", err, text)
		}
	}
	return j
}

// ask sends a request and reads its immediate answer.
func (j *janus) ask(path string, body map[string]any, into *event) error {
	body["transaction"] = "t"
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	res, err := http.Post(janusAPI+path, "application/json", bytes.NewReader(raw))
	if err != nil {
		return err
	}
	return read(res, into)
}

func read(res *http.Response, into *event) error {
	b, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %.200s", err, b)
	}
	if into.Janus == "error" {
		return errors.New(into.Error.Reason)
	}
	return nil
}

// next waits for an event of a handle that wants it.
func (j *janus) next(handle int64, wanted func(event) bool) (event, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		res, err := http.Get(fmt.Sprintf("%s/%d?maxev=1", janusAPI, j.session))
		if err != nil {
			return event{}, err
		}
		var e event
		if err := read(res, &e); err != nil {
			return e, err
		}
		if e.Sender == handle && e.Janus == "event" && wanted(e) {
			return e, nil
		}
	}
	return event{}, errors.New("no event in time")
}

func (j *janus) name() string { return "janus" }
func (j *janus) pid() int     { return j.cmd.Process.Pid }

func (j *janus) accept(i int, s *stream) (string, error) {
	var e event
	session := fmt.Sprintf("/%d", j.session)
	if err := j.ask(session, map[string]any{"janus": "attach", "plugin": "janus.plugin.videoroom"}, &e); err != nil {
		return "", err
	}
	handle := e.Data.ID
	path := fmt.Sprintf("%s/%d", session, handle)
	join := map[string]any{"request": "join", "ptype": "publisher", "room": room, "id": i + 1}
	if err := j.ask(path, map[string]any{"janus": "message", "body": join}, &e); err != nil {
		return "", err
	}
	if _, err := j.next(handle, func(event) bool { return true }); err != nil {
		return "", fmt.Errorf("join: %w", err)
	}
	publish := map[string]any{
		"janus": "message", "body": map[string]any{"request": "publish", "audio": true, "video": false, "filename": fmt.Sprint("stream-", i)},
		"jsep": map[string]any{"type": "offer", "sdp": s.pc.LocalDescription().SDP},
	}
	if err := j.ask(path, publish, &e); err != nil {
		return "", err
	}
	e, err := j.next(handle, func(e event) bool { return e.JSEP.SDP != "" })
	if err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	return e.JSEP.SDP, nil
}

func (j *janus) record([]*stream) error { return nil } // from the first packet on

// came is not told by Janus: the size of its recordings says that it records at all.
func (j *janus) came() (uint64, int64, error) {
	list, err := os.ReadDir(j.dir)
	if err != nil {
		return 0, 0, err
	}
	var size int64
	for _, e := range list {
		info, err := e.Info()
		if err != nil {
			return 0, 0, err
		}
		size += info.Size()
	}
	if size < 1<<20 {
		return 0, 0, fmt.Errorf("janus recorded %d bytes", size)
	}
	return 1 << 62, size, nil
}

func (j *janus) stop() error {
	if err := j.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := j.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}
