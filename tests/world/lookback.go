package world

import (
	"context"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/queueerror"

	"steno/shared/policy"
)

// Lookback puts a message on the Storage queue lookback, as an operator does.
func (w *World) Lookback(ctx context.Context, body string) error {
	q, err := azqueue.NewQueueClientFromConnectionString(w.Storage.ConnectionString(), "lookback",
		&azqueue.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: w.CA.Client()}})
	if err != nil {
		return err
	}
	if _, err := q.Create(ctx, nil); err != nil && !queueerror.HasCode(err, queueerror.QueueAlreadyExists) {
		return fmt.Errorf("create queue: %w", err)
	}
	_, err = q.EnqueueMessage(ctx, body, nil)
	return err
}

// LookedBack carries look-backs on until there are n jobs and all of them have ended.
func (w *World) LookedBack(ctx context.Context, a *Archive, n int) ([]policy.Lookback, error) {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		jobs, err := a.Jobs.List(ctx)
		if err != nil {
			return nil, err
		}
		ended := 0
		for _, j := range jobs {
			if j.Ended() {
				ended++
			}
		}
		if ended == len(jobs) && len(jobs) >= n {
			return jobs, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("look-backs do not end: %+v", jobs)
		}
		if err := w.Host.RunTimer(ctx, "lookbacksteps"); err != nil {
			return nil, err
		}
		if err := Sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
