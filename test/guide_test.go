package test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/sdk/recordio"
)

// TestGuideMesosByHand sends the calls that docs/framework-authors.md shows, to the
// letter.
func TestGuideMesosByHand(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/framework-authors.md")
	if err != nil {
		t.Fatal(err)
	}
	subscribe := regexp.MustCompile(`(?s)curl -sN -i -H 'Content-Type: application/json' -d '(\{.*?\})' http://127\.0\.0\.1:5050(/\S+)\n`).FindSubmatch(page)
	decline := regexp.MustCompile(`(?m)^\{.*"DECLINE".*\}$`).Find(page)
	if subscribe == nil || decline == nil {
		t.Fatal("the page does not show the calls any more")
	}
	c := startDev(t)
	url := "http://" + c.fields["mesos"] + string(subscribe[2])
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	post := func(body []byte, stream string) *http.Response {
		t.Helper()
		q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		if stream != "" {
			q.Header.Set("Mesos-Stream-Id", stream)
		}
		answer, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	events := post(subscribe[1], "")
	defer events.Body.Close()
	records := recordio.NewReader(events.Body, recordio.DefaultLimit)
	var event struct {
		Type       string
		Subscribed struct {
			FrameworkID struct{ Value string } `json:"framework_id"`
		}
		Offers struct {
			Offers []struct{ ID struct{ Value string } }
		}
	}
	id := ""
	for event.Type != "OFFERS" {
		record, err := records.Next()
		if err != nil {
			t.Fatalf("%s: %v", events.Status, err)
		}
		if err := json.Unmarshal(record, &event); err != nil {
			t.Fatalf("%v: %s", err, record)
		}
		if event.Type == "SUBSCRIBED" {
			id = event.Subscribed.FrameworkID.Value
		}
	}
	body := strings.NewReplacer(`"ID"`, `"`+id+`"`, `"OFFER"`, `"`+event.Offers.Offers[0].ID.Value+`"`).Replace(string(decline))
	answer := post([]byte(body), events.Header.Get("Mesos-Stream-Id"))
	answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		t.Errorf("%s: %s", body, answer.Status)
	}
}

// TestGuideTesting runs the test that the page shows against a cluster.
func TestGuideTesting(t *testing.T) {
	t.Parallel()
	out, err := build(t, "..", []string{"MEZZO=" + filepath.Join(bin, "mezzo")}, "go", "test", "-count=1", "-v", "./sdk/examples/scheduler-hello")
	if err != nil || !strings.Contains(out, "--- PASS: TestRunsItsTasks") {
		t.Errorf("%v\n%s", err, out)
	}
}
