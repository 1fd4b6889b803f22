# The daemon only: built on Debian 12, with its C library, OpenSSL and certificates and nothing else, as an
# unprivileged user.
#
#   docker build --tag jetcopy:0.1.0 .

FROM rust:1.92.0-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY migrations migrations
COPY config config
COPY src src
# --locked: the versions of Cargo.lock, and nothing newer.
RUN cargo build --release --locked --bin jetcopy \
    && strip target/release/jetcopy

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="jetcopy" \
      org.opencontainers.image.description="NATS JetStream into PostgreSQL and TimescaleDB, exactly once" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /src/target/release/jetcopy /usr/bin/jetcopy
USER 65532:65532
ENV JETCOPY_CONFIG=/etc/jetcopy/jetcopy.toml
EXPOSE 9464
# There is no shell and no curl: the program checks itself.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 CMD ["/usr/bin/jetcopy", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/jetcopy"]
CMD ["run"]
