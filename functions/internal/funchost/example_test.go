package funchost_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"steno/functions/internal/funchost"
)

// A main registers its functions and serves. Here the host's call is made by hand.
func Example() {
	mux, err := funchost.New(funchost.Config{
		RoutePrefix: "steno",
		Park:        func(_ context.Context, p funchost.Parked) error { fmt.Println("parked:", p.Reason); return nil },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux.Queue("finalize", "leg", func(_ context.Context, m funchost.Message) error {
		if len(m.Body) == 0 {
			return fmt.Errorf("decode leg: %w", funchost.ErrPoison)
		}
		fmt.Printf("finalize %s\n", m.Body)
		return nil
	})
	mux.HTTP("portal", funchost.Route{Pattern: "{*path}"}, http.NotFoundHandler())

	// A main goes on with:
	//	l, err := funchost.Listen(ctx, os.Getenv(funchost.PortVariable))
	//	...
	//	os.Exit(funchost.ExitCode(mux.Serve(ctx, l)))
	h, err := mux.Handler()
	if err != nil {
		fmt.Println(err)
		return
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/finalize", strings.NewReader(`{"Data":{"leg":"\"{\\\"id\\\":7}\""},"Metadata":{}}`)))
	fmt.Println(w.Code, w.Body)
	// Output:
	// finalize {"id":7}
	// 200 {"Outputs":{},"Logs":[],"ReturnValue":null}
}
