// Package fetcher brings what a task's URIs name into its sandbox: files, http
// and https, archives unpacked, with a cache and checksums.
//
// Downloads come from anywhere and archives are made by anyone, so nothing of
// that is read by the agent itself. A worker process does it, one an URI, under
// the identity that the task will run as: it can read no file and write no
// place that the task could not, and if an archive brings it down, it brings
// down nothing else. It gets the sandbox (and the cache, where that has a part)
// as open directories and reaches nothing but what is below them.
//
// The cache keeps whole downloads, a directory a user, so that no user's
// download is given to another. It is empty when an agent starts. An item is
// downloaded once, however many tasks wait for it, and the item that was used
// longest ago makes room for a new one. What does not fit is fetched without
// the cache.
package fetcher
