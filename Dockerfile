# The image holds one static binary, CA roots and an empty folder for the
# users, and nothing else. `make image` puts them into build/image first:
# nothing is pulled, so it builds without a network.
FROM scratch

COPY --chown=65532:65532 build/image/ /

ENV POLYPORT_LISTEN=0.0.0.0:7659 \
    POLYPORT_HTPASSWD=/etc/polyport/users.htpasswd \
    POLYPORT_CONTAINER=1

USER 65532:65532
EXPOSE 7659
VOLUME ["/etc/polyport"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=5s CMD ["/polyport", "doctor", "--quiet"]
ENTRYPOINT ["/polyport"]
