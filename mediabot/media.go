package main

import (
	"context"
	"errors"
	"log/slog"

	"steno/mediabot/internal/session"
	"steno/shared/conversation"
	"steno/shared/evidence"
)

// mediaPath is the way of media from the gateway's peer to evidence.
type mediaPath interface {
	session.Media
	// Run carries media to evidence until ctx ends. What is left then goes on with the
	// next start.
	Run(ctx context.Context) error
	// Ready returns nil while there is room for the media of more calls.
	Ready() error
	// Empty reports whether everything is in evidence.
	Empty() bool
}

// mediaParts is what a media path is made of.
type mediaParts struct {
	dir      string // of its own
	evidence evidence.Config
	// recovered is told of a leg that an earlier process did not hand over, once all of it
	// is in evidence. It may be told twice.
	recovered func(conversation.LegNotice) error
	log       *slog.Logger
}

// openMedia opens the media path.
func openMedia(mediaParts) (mediaPath, error) {
	return nil, errors.New("this build has no media path")
}
