# syntax=docker/dockerfile:1

# The binary is static and pure Go, so that it runs in an image without libc.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download && go mod verify
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/server ./cmd/server \
 && mkdir /out/shared

# No shell, no package manager, no root.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/server /server
# "server sim" writes here. A named volume takes its owner from this directory
# when it is first mounted; without it, the volume would belong to root.
COPY --from=build --chown=65532:65532 /out/shared /shared
COPY LICENSE /LICENSE
USER 65532:65532
# The default, 127.0.0.1, would be out of reach from outside the container.
ENV KEYROLL_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["/server", "healthcheck"]
ENTRYPOINT ["/server"]
CMD ["serve"]
