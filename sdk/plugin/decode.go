package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
)

// ConfigError says which value of a configuration could not be decoded.
type ConfigError struct {
	Path    []string // as Diagnostic.Path
	Problem string
}

func (e *ConfigError) Error() string {
	if len(e.Path) == 0 {
		return "configuration: " + e.Problem
	}
	return "configuration: " + strings.Join(e.Path, ".") + ": " + e.Problem
}

// DecodeConfig fills the struct that v points to from the JSON that Configure
// receives (see the comment of mezzo.plugin.v1.Type for the form of values).
// What is absent gets its default. An unknown name, a missing required value
// and a value that does not fit are errors; a *ConfigError names the place.
// Empty JSON is an empty object.
func DecodeConfig(data []byte, v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() || rv.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("configuration %T: want a pointer to a struct", v)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte("{}")
	}
	return decodeStruct(data, rv.Elem(), nil)
}

func decodeStruct(data []byte, into reflect.Value, path []string) error {
	fields, err := fieldsOf(into.Type())
	if err != nil {
		return err
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(data, &values); err != nil {
		return &ConfigError{path, "want a block"}
	}
	for _, f := range fields {
		raw, present := values[f.name]
		delete(values, f.name)
		if present && string(raw) == "null" {
			present = false
		}
		if err := decodeField(f, raw, present, into.FieldByIndex(f.index), append(path[:len(path):len(path)], f.name)); err != nil {
			return err
		}
	}
	if len(values) > 0 {
		unknown := make([]string, 0, len(values))
		for name := range values {
			unknown = append(unknown, name)
		}
		sort.Strings(unknown)
		return &ConfigError{append(path[:len(path):len(path)], unknown[0]), "this plugin knows no such setting"}
	}
	return nil
}

func decodeField(f field, raw json.RawMessage, present bool, into reflect.Value, path []string) error {
	if !present {
		switch {
		case f.required:
			return &ConfigError{path, "a value is required"}
		case f.block != nil && into.Kind() == reflect.Struct:
			return decodeStruct([]byte("{}"), into, path)
		case f.defaultJSON == "":
			return nil
		}
		raw = json.RawMessage(f.defaultJSON)
	}
	if f.block == nil {
		if err := json.Unmarshal(raw, into.Addr().Interface()); err != nil {
			if f.secret {
				raw = json.RawMessage("its value, which is secret,")
			}
			return &ConfigError{path, fmt.Sprintf("%s is no %s", raw, typeWord(into.Type()))}
		}
		return nil
	}
	if !f.repeated {
		return decodeStruct(raw, target(into), path)
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return &ConfigError{path, "want a list of blocks"}
	}
	into.Set(reflect.MakeSlice(into.Type(), len(items), len(items)))
	for i, item := range items {
		if err := decodeStruct(item, target(into.Index(i)), append(path[:len(path):len(path)], strconv.Itoa(i))); err != nil {
			return err
		}
	}
	return nil
}

// target returns the struct itself, made first if a pointer leads to it.
func target(v reflect.Value) reflect.Value {
	if v.Kind() != reflect.Pointer {
		return v
	}
	v.Set(reflect.New(v.Type().Elem()))
	return v.Elem()
}

func typeWord(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.String()
}

// validate runs Validate on the configuration and on every block inside it.
func validate(config any) []Diagnostic {
	return validateStruct(reflect.ValueOf(config).Elem(), nil)
}

func validateStruct(v reflect.Value, path []string) []Diagnostic {
	var out []Diagnostic
	if validator, ok := v.Addr().Interface().(Validator); ok {
		for _, d := range validator.Validate() {
			d.Path = append(path[:len(path):len(path)], d.Path...)
			out = append(out, d)
		}
	}
	fields, err := fieldsOf(v.Type())
	if err != nil {
		return append(out, Diagnostic{Summary: "plugin definition is wrong", Detail: err.Error()})
	}
	for _, f := range fields {
		if f.block == nil {
			continue
		}
		inner, here := v.FieldByIndex(f.index), append(path[:len(path):len(path)], f.name)
		switch inner.Kind() {
		case reflect.Slice:
			for i := range inner.Len() {
				out = append(out, validateStruct(reflect.Indirect(inner.Index(i)), append(here[:len(here):len(here)], strconv.Itoa(i)))...)
			}
		case reflect.Pointer:
			if !inner.IsNil() {
				out = append(out, validateStruct(inner.Elem(), here)...)
			}
		default:
			out = append(out, validateStruct(inner, here)...)
		}
	}
	return out
}
