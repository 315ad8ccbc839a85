// Package test holds the tests of what is in deploy/: the units are verified and run under their own restrictions, the manifests are built
// and validated, the images' steps are executed, and every flag and variable that any of them names is one that the program knows.
package test
