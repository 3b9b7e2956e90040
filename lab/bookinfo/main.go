// Command bookinfo stands in for the four services of Istio's bookinfo sample: same names, port, paths and answers.
//
//	bookinfo productpage|details|reviews|ratings VERSION
package main

import (
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

// Headers that a service passes on, so that a mesh can trace and route a whole request.
var passedOn = []string{
	"x-request-id", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
	"x-ot-span-context", "traceparent", "tracestate", "end-user", "user-agent", "cookie", "authorization",
}

var client = &http.Client{Timeout: 3 * time.Second}

type rating struct {
	Stars int    `json:"stars"`
	Color string `json:"color"`
}

type review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *rating `json:"rating,omitempty"`
}

type reviews struct {
	ID          string   `json:"id"`
	PodName     string   `json:"podname"`
	ClusterName string   `json:"clustername"`
	Reviews     []review `json:"reviews"`
}

type details struct {
	ID        int    `json:"id"`
	Author    string `json:"author"`
	Year      int    `json:"year"`
	Type      string `json:"type"`
	Pages     int    `json:"pages"`
	Publisher string `json:"publisher"`
	Language  string `json:"language"`
	ISBN10    string `json:"ISBN-10"`
	ISBN13    string `json:"ISBN-13"`
}

// fetch asks another service, with the request's own headers passed on, and decodes its JSON answer.
func fetch(r *http.Request, url string, answer any) error {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for _, name := range passedOn {
		if value := r.Header.Get(name); value != "" {
			request.Header.Set(name, value)
		}
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d: %s", url, response.StatusCode, strings.TrimSpace(string(body)))
	}
	return json.Unmarshal(body, answer)
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		log.Print(err)
	}
}

func address(service string) string {
	host := os.Getenv(strings.ToUpper(service) + "_HOSTNAME")
	if host == "" {
		host = service
	}
	return "http://" + host + ":9080"
}

func serveDetails(w http.ResponseWriter, _ *http.Request) {
	answer(w, details{0, "William Shakespeare", 1595, "paperback", 200, "PublisherA", "English", "1234567890", "123-1234567890"})
}

func serveRatings(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"id": 0, "ratings": map[string]int{"Reviewer1": 5, "Reviewer2": 4}})
}

func serveReviews(version string) http.HandlerFunc {
	color := map[string]string{"v2": "black", "v3": "red"}[version]
	return func(w http.ResponseWriter, r *http.Request) {
		pod, _ := os.Hostname()
		result := reviews{ID: "0", PodName: pod, ClusterName: os.Getenv("ISTIO_META_CLUSTER_ID"), Reviews: []review{
			{Reviewer: "Reviewer1", Text: "An extremely entertaining play by Shakespeare."},
			{Reviewer: "Reviewer2", Text: "Absolutely fun and entertaining."},
		}}
		if color != "" {
			var ratings struct{ Ratings map[string]int }
			if err := fetch(r, address("ratings")+"/ratings/0", &ratings); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			for i := range result.Reviews {
				result.Reviews[i].Rating = &rating{ratings.Ratings[result.Reviews[i].Reviewer], color}
			}
		}
		answer(w, result)
	}
}

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"stars": func(n int) []struct{} { return make([]struct{}, n) },
}).Parse(`<!DOCTYPE html>
<html>
<head><title>Simple Bookstore App</title></head>
<body>
<h1>The Comedy of Errors</h1>
{{with .Details}}<h2>Book Details</h2>
<dl><dt>Author</dt><dd>{{.Author}}</dd><dt>Year</dt><dd>{{.Year}}</dd><dt>Pages</dt><dd>{{.Pages}}</dd><dt>ISBN-10</dt><dd>{{.ISBN10}}</dd></dl>
{{else}}<p>Sorry, product details are currently unavailable for this book.</p>
{{end}}{{with .Reviews}}<h2>Book Reviews</h2>
{{range .Reviews}}<blockquote><p>{{.Text}}</p><small>{{.Reviewer}}</small>
{{with .Rating}}<font color="{{.Color}}">{{range stars .Stars}}<span class="star">&#9733;</span>{{end}}</font>
{{end}}</blockquote>
{{end}}<p>Reviews served by: <u>{{.PodName}}</u></p>
{{else}}<p>Sorry, product reviews are currently unavailable for this book.</p>
{{end}}</body>
</html>
`))

func servePage(w http.ResponseWriter, r *http.Request) {
	var data struct {
		Details *details
		Reviews *reviews
	}
	var d details
	if err := fetch(r, address("details")+"/details/0", &d); err != nil {
		log.Print(err)
	} else {
		data.Details = &d
	}
	var v reviews
	if err := fetch(r, address("reviews")+"/reviews/0", &v); err != nil {
		log.Print(err)
	} else {
		data.Reviews = &v
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := page.Execute(w, data); err != nil {
		log.Print(err)
	}
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: bookinfo productpage|details|reviews|ratings VERSION")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]string{"status": "ok"}) })
	switch service := os.Args[1]; service {
	case "productpage":
		mux.HandleFunc("/productpage", servePage)
		mux.HandleFunc("/api/v1/products", func(w http.ResponseWriter, _ *http.Request) {
			answer(w, []map[string]any{{"id": 0, "title": "The Comedy of Errors"}})
		})
	case "details":
		mux.HandleFunc("/details/", serveDetails)
	case "ratings":
		mux.HandleFunc("/ratings/", serveRatings)
	case "reviews":
		mux.HandleFunc("/reviews/", serveReviews(os.Args[2]))
	default:
		log.Fatalf("no service %q", service)
	}
	log.Fatal(http.ListenAndServe(":9080", mux))
}
