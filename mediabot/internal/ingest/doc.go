// Package ingest receives a leg's media from the gateway over WebRTC and turns it into timed
// samples, each attributed to a source, with every missing frame named.
package ingest
