// Reads a stream with com.squareup.okhttp3:okhttp-sse: Client plain|remedy URL

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.sse.EventSource;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;

public class Client {
    public static void main(String[] arguments) {
        if (arguments[0].equals("plain")) {
            plain(arguments[1]);
        } else {
            new Follower(arguments[1]).open();
        }
    }

    /** The simplest that its documentation knows. */
    static void plain(String url) {
        Request request = new Request.Builder().url(url).build();
        EventSources.createFactory(new OkHttpClient()).newEventSource(request, new EventSourceListener() {
            @Override public void onEvent(EventSource source, String id, String type, String data) {
                show(id, type, data);
            }
        });
    }

    // remedy
    static class Follower extends EventSourceListener {
        final EventSource.Factory factory = EventSources.createFactory(
            new OkHttpClient.Builder().readTimeout(45, TimeUnit.SECONDS).build()); // three heartbeats
        final String url;
        String last = "";
        Follower(String url) { this.url = url; }
        void open() { factory.newEventSource(new Request.Builder().url(url).header("Last-Event-ID", last).build(), this); }
        void later() { CompletableFuture.delayedExecutor(3, TimeUnit.SECONDS).execute(this::open); }
        public void onEvent(EventSource source, String id, String type, String data) { if (id != null) last = id; show(id, type, data); }
        public void onClosed(EventSource source) { later(); }
        public void onFailure(EventSource source, Throwable why, Response response) {
            if (response == null || response.code() != 204 && response.code() != 400) later();
        }
    }
    // end of remedy

    static void show(String id, String type, String data) {
        String[] words = {"id", id, "type", type, "data", data};
        StringBuilder line = new StringBuilder();
        for (int at = 0; at < words.length; at += 2) {
            String word = words[at + 1] == null ? "" : words[at + 1];
            String quoted = word.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n");
            line.append(at == 0 ? "{" : ", ").append('"' + words[at] + "\": \"" + quoted + '"');
        }
        System.out.println(line.append('}'));
    }
}
