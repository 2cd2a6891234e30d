# The image holds one static binary, CA roots and an empty folder for users and
# configuration, and nothing else. `make rootfs` puts them into build/image
# first and nothing is pulled, so it builds without a network:
#   make rootfs && docker build -t polyport .     or, with buildah,     make image
FROM scratch

COPY build/image/root/ /
# The one place that the user below may write to. As a volume it keeps this owner.
COPY --chown=65532:65532 build/image/volume/ /etc/

ENV POLYPORT_LISTEN=0.0.0.0:7659 \
    POLYPORT_HTPASSWD=/etc/polyport/users.htpasswd \
    POLYPORT_CONTAINER=1

USER 65532:65532
EXPOSE 7659/tcp 7659/udp
VOLUME ["/etc/polyport"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=5s CMD ["/polyport", "doctor", "--quiet"]
ENTRYPOINT ["/polyport"]
