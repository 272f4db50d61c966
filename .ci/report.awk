# Reads `go test -v` and prints what a person wants of it: a line a package, the output of the tests that failed, and the
# tests that were skipped with their reasons. Exits 1 if a test failed or, with root set, if the comparison with kernel
# overlayfs was skipped.

/^=== (RUN|CONT|NAME)/ { test = $3; loud = 0; next }
/^=== PAUSE/ { next }
match($0, /^ *--- (PASS|FAIL|SKIP): /) {
    name = $3
    result = substr($2, 1, 4)
    if (result == "PASS") passed++
    if (result == "PASS" && name ~ /^Test(Read|Write)\/(overlay|stacked|fuse)/) judged++ # these pass only beside kernel overlayfs
    if (result == "FAIL") { failed++; failures = failures "\n--- FAIL: " name "\n" output[name] }
    if (result == "SKIP") { skipped++; skips[reason[name]]++; example[reason[name]] = name }
    if (result == "SKIP" && reason[name] ~ /kernel overlayfs/) unjudged = unjudged "  " name "\n"
    test = name
    next
}
/^(ok|FAIL|\?) *\t/ {
    print
    fflush()
    if ($1 == "FAIL") broken = 1
    test = ""
    loud = 0
    delete output
    delete reason
    next
}
/^(PASS|FAIL)$/ { test = ""; next } # what follows is of the whole package, such as a mount that it has left
/^(panic:|fatal error:|# )/ { loud = 1 } # of a crash or a failed build everything is wanted, up to the next test
loud { print; next }
test != "" {
    output[test] = output[test] $0 "\n"
    line = $0
    if (sub(/^ *[a-z_0-9]+\.go:[0-9]+: /, "", line)) reason[test] = line
    next
}
{ print }

END {
    if (failures) print failures
    if (skipped) print "\nSkipped:"
    for (why in skips) printf "  %d, such as %s: %s\n", skips[why], example[why], why
    if (root && unjudged) printf "\nFAIL: root could have compared these with the kernel:\n%s", unjudged
    if (root && !judged) print "\nFAIL: nothing was compared with kernel overlayfs, as root can"
    printf "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped
    if (failed || broken || root && (unjudged || !judged)) exit 1
}
