package azure

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// idlePerHost is how many connections to one service are kept open. The libraries'
// own transport keeps ten; an instance that stores eight windows at once, four
// conversations each, would spend a tenth of its CPU on handshakes.
const idlePerHost = 64

// ClientOptions are the options that every client of an Azure service is made with.
func ClientOptions() azcore.ClientOptions {
	d := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return azcore.ClientOptions{Transport: &http.Client{Transport: &http.Transport{
		DialContext:         d.DialContext,
		MaxIdleConnsPerHost: idlePerHost,
		// Azure's front ends close idle connections after a few minutes.
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(idlePerHost),
		},
		ForceAttemptHTTP2: true,
	}}}
}
