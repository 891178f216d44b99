package host

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"slices"
	"strings"
	"sync"
)

// Level is what the host makes of a line.
type Level string

// The levels. A custom handler cannot choose: stdout is Information, stderr is Error, or Warning if the line contains "warn"
// (azure-functions-host, HttpWorkerProcess with UseStdErrorStreamForErrorsOnly).
const (
	Information Level = "Information"
	Warning     Level = "Warning"
	Error       Level = "Error"
)

const (
	maxLine   = 64 << 10 // longer lines are cut
	maxErrors = 1000     // kept for Errors
)

// console takes the lines of the handler and of the host itself.
type console struct {
	mu     sync.Mutex
	out    io.Writer
	errors []string
}

func (c *console) line(level Level, category, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if level == Error && len(c.errors) < maxErrors {
		c.errors = append(c.errors, text)
	}
	if c.out != nil {
		// A log that cannot be written has nobody to be told to.
		_, _ = fmt.Fprintf(c.out, "%s %s: %s\n", level, category, text)
	}
}

func (c *console) errorf(format string, args ...any) {
	c.line(Error, "Host", fmt.Sprintf(format, args...))
}

func (c *console) infof(format string, args ...any) {
	c.line(Information, "Host", fmt.Sprintf(format, args...))
}

func (c *console) errorLines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.errors)
}

// stream splits one output of the handler into lines.
type stream struct {
	console *console
	stderr  bool
	rest    []byte
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for {
		i := bytes.IndexByte(s.rest, '\n')
		if i < 0 && len(s.rest) < maxLine {
			return len(p), nil
		}
		end := min(i, maxLine)
		if i < 0 {
			end = maxLine
		}
		s.emit(string(s.rest[:end]))
		s.rest = s.rest[min(end+1, len(s.rest)):]
	}
}

// flush emits what stood behind the last line.
func (s *stream) flush() {
	if len(s.rest) > 0 {
		s.emit(string(s.rest))
		s.rest = nil
	}
}

func (s *stream) emit(line string) {
	line = strings.TrimSuffix(line, "\r")
	level := Information
	if s.stderr {
		level = Error
		if strings.Contains(strings.ToLower(line), "warn") {
			level = Warning
		}
	}
	s.console.line(level, "Host.Function.Console", line)
}

// logger takes what net/http complains about.
func (c *console) logger() *log.Logger {
	return log.New(writerFunc(func(p []byte) (int, error) {
		c.line(Information, "Host", strings.TrimSpace(string(p)))
		return len(p), nil
	}), "", 0)
}

type writerFunc func([]byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
