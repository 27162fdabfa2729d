package config

import "github.com/hashicorp/hcl/v2"

// File is what Load read: one or more files, united.
type File struct {
	paths   []string // the files, in the order read
	sources map[string]*hcl.File
	body    hcl.Body
}

// Sources are the parsed files by name, for WriteDiagnostics.
func (f *File) Sources() map[string]*hcl.File { return f.sources }
