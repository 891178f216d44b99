package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateLook is how often the files of the certificate are looked at.
const certificateLook = time.Minute

// certificate serves the certificate of two PEM files, and a renewed one without a
// restart. A renewed one that cannot be read leaves the old in use, with an alarm.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	now    *tls.Certificate
	stamp  [2]time.Time
	looked time.Time
}

func openCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	stamp, err := c.stamps()
	if err == nil {
		err = c.load(stamp)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c.looked = time.Now()
	return c, nil
}

func (c *certificate) stamps() (out [2]time.Time, err error) {
	for i, name := range []string{c.cert, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return out, err
		}
		out[i] = info.ModTime()
	}
	return out, nil
}

func (c *certificate) load(stamp [2]time.Time) error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	c.now, c.stamp = &pair, stamp
	return nil
}

// get is for tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < certificateLook {
		return c.now, nil
	}
	c.looked = time.Now()
	stamp, err := c.stamps()
	if err == nil && stamp != c.stamp {
		err = c.load(stamp)
	}
	if err != nil {
		c.log.Error("renewed certificate not read", slog.String("alarm", "certificate"), slog.String("cause", err.Error()))
	}
	return c.now, nil
}
