package recorded

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// describe writes a value as JSON, in one form only: exported fields that are not
// zero, by name.
func describe(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.MarshalIndent(plain(t, reflect.ValueOf(v)), "", " ")
	must(t, err)
	return append(text, '\n')
}

// plain is a value as maps, lists, texts and booleans; nil: it is zero.
func plain(t *testing.T, v reflect.Value) any {
	if !v.IsValid() || v.IsZero() && v.Kind() != reflect.Pointer {
		return nil
	}
	switch x := v.Interface().(type) {
	case proto.Message:
		if v.Kind() == reflect.Pointer && v.IsNil() {
			return nil
		}
		text, err := protojson.MarshalOptions{AllowPartial: true}.Marshal(x)
		must(t, err)
		var out any
		must(t, json.Unmarshal(text, &out))
		return out
	case json.RawMessage:
		var out any
		must(t, json.Unmarshal(x, &out))
		return out
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano)
	case fmt.Stringer:
		if v.Kind() != reflect.Struct && v.Kind() != reflect.Pointer {
			return x.String()
		}
	case error:
		return x.Error()
	case []byte:
		if utf8.Valid(x) {
			return string(x)
		}
		return hex.EncodeToString(x)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return plain(t, v.Elem())
	case reflect.Struct:
		out := map[string]any{}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				if x := plain(t, v.Field(i)); x != nil {
					out[f.Name] = x
				}
			}
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for _, k := range v.MapKeys() {
			out[fmt.Sprint(k.Interface())] = plain(t, v.MapIndex(k))
		}
		return out
	case reflect.Slice, reflect.Array:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plain(t, v.Index(i))
		}
		return out
	case reflect.Bool:
		return v.Bool()
	case reflect.String:
		return v.String()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	}
	return fmt.Sprint(v.Interface())
}
